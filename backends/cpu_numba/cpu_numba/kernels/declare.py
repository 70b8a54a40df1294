"""Holds the list that every kernel of this backend is declared in."""

from core import KernelSet

kernels = KernelSet("cpu_numba")
#: what loads and stores widen and round
FLOATS = "f32 f16 bf16"
#: the family of kernels that sum a row's products lane by lane, and of all that compute by rows
DOT = "dot"
#: the family of products of integer codes with activations as floats
WIDENED = "widened"
