"""Makes the backend object: native arrays, captured steps, late reads."""

from __future__ import annotations

from typing import Any

from core import Backend, Launch, Tensor, bf16, cuda
from cuda_cupy import capture
from cuda_cupy.compiler import sources
from cuda_cupy.device import gpu, open_device


class CupyBackend(cuda.CudaBackend):
    """Gives kernels `cupy.ndarray`s: bf16 as uint16, packed 4-bit codes as uint8."""

    name = "cuda_cupy"
    kernel_sources = sources
    one_gpu = gpu

    def __init__(self, device: int = 0) -> None:
        self.gpu = open_device(device)  # says what is missing before anything below imports CuPy
        import cupy

        from cuda_cupy.allocator import CudaAllocator
        from cuda_cupy.reads import late_reads
        self._cupy = cupy
        with gpu:
            self.allocator = CudaAllocator(self.gpu)
            self.late_reads = late_reads(self.gpu)
        self.stream = int(self.gpu.stream.ptr)

    def native(self, tensor: Tensor) -> Any:  # noqa: ANN401 - the ABC's signature
        cp = self._cupy
        dtype = "uint16" if tensor.dtype == bf16 else tensor.dtype.numpy
        memory = cp.cuda.UnownedMemory(tensor.pointer, tensor.nbytes, tensor.buffer,
                                       self.gpu.index)
        steps = tuple(s * tensor.dtype.itemsize for s in tensor.strides)
        return cp.ndarray(tensor.shape, dtype, cp.cuda.MemoryPointer(memory, 0), steps)

    def record(self, launch: Launch) -> Launch:
        return capture.record(launch)

    def after(self, other: Backend) -> Launch:
        """Wait by an event on the other's stream: both work in the device's primary context."""
        if other.stream is None:
            return super().after(other)
        cp, ours = self._cupy, self.gpu.stream
        with gpu:
            theirs = cp.cuda.ExternalStream(other.stream)
            event = gpu.keep(cp.cuda.Event(disable_timing=True))

        def wait() -> None:
            event.record(theirs)
            ours.wait_event(event)
        return self.in_any_thread(wait)

    def read_bandwidth(self) -> float:
        from cuda_cupy.bandwidth import measure
        with gpu:
            return measure()

    def describe(self) -> str:
        return f"CuPy {self._cupy.__version__}, {self.gpu.describe()}"
