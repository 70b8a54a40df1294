"""Holds every kernel of cpu_numpy. Importing a family's module declares its kernels in
`kernels`."""

from cpu_numpy.kernels import attention, basic, linear, logits, sampling  # noqa: F401 - they declare
from cpu_numpy.kernels.declare import kernels

__all__ = ["kernels"]
