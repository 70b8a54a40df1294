"""Holds the list that every kernel of this backend is declared in."""

from core import KernelSet

kernels = KernelSet("cpu_numba")
#: what loads and stores widen and round
FLOATS = "f32 f16 bf16"
