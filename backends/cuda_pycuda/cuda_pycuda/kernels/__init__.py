"""Declares every kernel of cuda_pycuda: importing a family's module adds its kernels to
`kernels`."""

from cuda_pycuda.kernels import (  # noqa: F401 - they declare
    attention,
    blocked,
    fused,
    linear,
    lookup,
    quantized,
    rowwise,
    sampling,
)
from cuda_pycuda.kernels.declare import kernels

__all__ = ["kernels"]
