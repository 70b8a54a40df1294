"""Holds the list in which every kernel of this backend is declared."""

from core import KernelSet

kernels = KernelSet("cuda_pycuda")
FLOATS = "f32 f16 bf16"
