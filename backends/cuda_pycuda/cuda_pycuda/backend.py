"""The backend object: native tensors, captured steps, and reads that do not hold the device up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from core import Backend, DType, Launch, Tensor, bf16, f16
from cuda_pycuda import compiler
from cuda_pycuda.device import driver_release, open_device


class PycudaBackend(Backend):
    """Kernels get the tensors themselves: all that they need is an address and a shape."""

    name = "cuda_pycuda"
    run_ahead = 2  # the next step is queued while the host waits for this one's token

    def __init__(self, device: int = 0) -> None:
        self.gpu = open_device(device)  # says what is missing before anything below imports PyCUDA
        compiler.toolchain()
        from cuda_pycuda.allocator import PycudaAllocator
        from cuda_pycuda.reads import LateReads
        self.allocator = PycudaAllocator(self.gpu)
        self.stream = int(self.gpu.stream.handle)
        self._reads = LateReads(self.gpu)

    def native(self, tensor: Tensor) -> Tensor:
        return tensor

    def activation_dtype(self, stored: DType) -> DType:
        """The stored 16-bit type, for which there are tensor cores; else float32."""
        return stored if stored in (f16, bf16) else super().activation_dtype(stored)

    def capture(self, launch: Launch) -> Launch:
        from cuda_pycuda.graphs import record
        return record(launch)

    def after(self, other: Backend) -> Launch:
        from cuda_pycuda.graphs import wait_for
        return super().after(other) if other.stream is None else wait_for(other.stream)

    def read_later(self, tensor: Tensor) -> Callable[[], np.ndarray]:
        return self._reads.queue(tensor)

    def read_bandwidth(self) -> float:
        from cuda_pycuda.bandwidth import measure
        return measure()

    def sources(self) -> Mapping[str, Path]:
        return {p.name: p for p in sorted(compiler.SOURCES.glob("*.cu*"))}

    @classmethod
    def cache_folders(cls) -> list[Path]:
        return compiler.kept.folders()

    def describe(self) -> str:
        import pycuda
        version = self.gpu.driver
        return (f"PyCUDA {pycuda.VERSION_TEXT}, CUDA {version // 1000}.{version % 1000 // 10}"
                f"{driver_release()}, GPU {self.gpu.index}: {self.gpu.name} (sm_{self.gpu.arch})")
