"""Makes the backend object: native tensors, captured steps, late reads."""

from __future__ import annotations

from core import Backend, Launch, Tensor, cuda
from cuda_pycuda import compiler
from cuda_pycuda.device import gpu, open_device


class PycudaBackend(cuda.CudaBackend):
    """Gives kernels the tensors themselves: all that they need is an address and a shape."""

    name = "cuda_pycuda"
    kernel_sources = compiler.sources
    one_gpu = gpu

    def __init__(self, device: int = 0) -> None:
        self.gpu = open_device(device)  # says what is missing before anything below imports PyCUDA
        compiler.compiler()
        from cuda_pycuda.allocator import PycudaAllocator
        from cuda_pycuda.reads import late_reads
        with gpu:
            self.allocator = PycudaAllocator(self.gpu)
            self.late_reads = late_reads(self.gpu)
        self.stream = int(self.gpu.stream.handle)

    def native(self, tensor: Tensor) -> Tensor:
        return tensor

    def record(self, launch: Launch) -> Launch:
        from cuda_pycuda.graphs import record
        return record(launch)

    def after(self, other: Backend) -> Launch:
        from cuda_pycuda.graphs import wait_for
        if other.stream is None:
            return super().after(other)
        with gpu:
            return self.in_any_thread(wait_for(other.stream))

    def read_bandwidth(self) -> float:
        from cuda_pycuda.bandwidth import measure
        with gpu:
            return measure()

    def describe(self) -> str:
        import pycuda
        return f"PyCUDA {pycuda.VERSION_TEXT}, {self.gpu.describe()}"
