"""The list that every kernel of this backend is declared in."""

from core.plugins.kernel import KernelSet

kernels = KernelSet("cpu_numpy")
