"""Holds every kernel of cpu_numpy. Importing a family's module declares its kernels in
`kernels`."""

from cpu_numpy.kernels import (  # noqa: F401 - they declare
    attention,
    basic,
    linear,
    logits,
    lookup,
    sampling,
)
from cpu_numpy.kernels.declare import kernels

__all__ = ["kernels"]
