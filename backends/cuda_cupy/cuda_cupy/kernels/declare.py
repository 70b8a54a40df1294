"""The list that every kernel of this backend is declared in."""

from core import KernelSet

kernels = KernelSet("cuda_cupy")
FLOATS = "f32 f16 bf16"
