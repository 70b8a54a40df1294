"""The backend object: native arrays, captured steps, and reads that do not hold the device up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from core import Backend, DType, Launch, Tensor, bf16, f16
from cuda_cupy import capture, compiler
from cuda_cupy.device import driver_release, open_device


class CupyBackend(Backend):
    """Kernels get `cupy.ndarray`s: bf16 as uint16, packed 4-bit codes as uint8."""

    name = "cuda_cupy"
    run_ahead = 2  # the next step is queued while the host waits for this one's token

    def __init__(self, device: int = 0) -> None:
        self.gpu = open_device(device)  # says what is missing before anything below imports CuPy
        import cupy

        from cuda_cupy.allocator import CudaAllocator
        from cuda_cupy.reads import LateReads
        self._cupy = cupy
        self.allocator = CudaAllocator(self.gpu)
        self._reads = LateReads(self.gpu)
        self.stream = int(self.gpu.stream.ptr)

    def native(self, tensor: Tensor) -> Any:  # noqa: ANN401 - the ABC's signature
        cp = self._cupy
        dtype = "uint16" if tensor.dtype == bf16 else tensor.dtype.numpy
        memory = cp.cuda.UnownedMemory(tensor.pointer, tensor.nbytes, tensor.buffer, 0)
        steps = tuple(s * tensor.dtype.itemsize for s in tensor.strides)
        return cp.ndarray(tensor.shape, dtype, cp.cuda.MemoryPointer(memory, 0), steps)

    @classmethod
    def activation_dtype(cls, stored: DType) -> DType:
        """The stored 16-bit type, for which there are tensor cores; else float32."""
        return stored if stored in (f16, bf16) else super().activation_dtype(stored)

    def capture(self, launch: Launch) -> Launch:
        return capture.record(launch)

    def after(self, other: Backend) -> Launch:
        """By an event on the other's stream: both work in the device's primary context."""
        if other.stream is None:
            return super().after(other)
        cuda, ours = self._cupy.cuda, self.gpu.stream
        theirs, event = cuda.ExternalStream(other.stream), cuda.Event(disable_timing=True)

        def wait() -> None:
            event.record(theirs)
            ours.wait_event(event)
        return wait

    def read_later(self, tensor: Tensor) -> Callable[[], np.ndarray]:
        return self._reads.queue(tensor)

    def read_bandwidth(self) -> float:
        from cuda_cupy.bandwidth import measure
        return measure()

    def sources(self) -> Mapping[str, Path]:
        return {p.name: p for p in sorted(compiler.SOURCES.glob("*.cu*"))}

    @classmethod
    def cache_folders(cls) -> list[Path]:
        return compiler.kept.folders()

    def describe(self) -> str:
        cp = self._cupy
        version = self.gpu.driver
        return (f"CuPy {cp.__version__}, CUDA {version // 1000}.{version % 1000 // 10}"
                f"{driver_release()}, GPU {self.gpu.index}: {self.gpu.name} (sm_{self.gpu.arch})")
