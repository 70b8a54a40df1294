"""Holds every kernel of cpu_numba. Importing a family's module declares its kernels in
`kernels`."""

from cpu_numba.kernels import (  # noqa: F401 - they declare
    attention,
    basic,
    blocked,
    fused,
    linear,
    logits,
    lookup,
    prefill,
    quantized,
    tiled,
)
from cpu_numba.kernels.declare import kernels

__all__ = ["kernels"]
