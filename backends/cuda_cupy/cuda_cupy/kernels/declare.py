"""Holds the list in which every kernel of this backend is declared."""

from core import KernelSet

kernels = KernelSet("cuda_cupy")
FLOATS = "f32 f16 bf16"
