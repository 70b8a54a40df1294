"""Holds the list that every kernel of this backend is declared in."""

from core import KernelSet

kernels = KernelSet("cpu_numpy")
