"""Makes the backend object: native tensors, captured steps, late reads."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from core import Backend, Launch, Tensor, cuda
from cuda_pycuda import compiler
from cuda_pycuda.device import open_device


class PycudaBackend(cuda.CudaBackend):
    """Gives kernels the tensors themselves: all that they need is an address and a shape."""

    name = "cuda_pycuda"
    kernel_sources = compiler.sources

    def __init__(self, device: int = 0) -> None:
        self.check_alive()
        self.gpu = open_device(device)  # says what is missing before anything below imports PyCUDA
        compiler.compiler()
        from cuda_pycuda.allocator import PycudaAllocator
        from cuda_pycuda.reads import late_reads
        self.allocator = PycudaAllocator(self.gpu)
        self.stream = int(self.gpu.stream.handle)
        self._reads = late_reads(self.gpu)
        self.ends_at_fork("CUDA contexts")

    def native(self, tensor: Tensor) -> Tensor:
        return tensor

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

    def describe(self) -> str:
        import pycuda
        return f"PyCUDA {pycuda.VERSION_TEXT}, {self.gpu.describe()}"
