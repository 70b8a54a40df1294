"""Holds the list that every kernel of this backend is declared in."""

from core import KernelSet

kernels = KernelSet("cpu_numpy")
#: the family of kernels that compute each row by itself: BLAS sums in another order for more rows
ROWS = "rows"
