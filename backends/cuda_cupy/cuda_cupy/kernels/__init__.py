"""Declares every kernel of cuda_cupy: importing a family's module adds its kernels to `kernels`."""

from cuda_cupy.kernels import (  # noqa: F401 - they declare
    attention,
    blocked,
    fused,
    hopper,
    linear,
    lookup,
    mixed,
    quantized,
    rowwise,
    sampling,
    skinny,
    stream,
)
from cuda_cupy.kernels.declare import kernels

__all__ = ["kernels"]
