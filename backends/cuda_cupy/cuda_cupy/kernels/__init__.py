"""Every kernel of cuda_cupy. Importing a family's module declares its kernels in `kernels`."""

from cuda_cupy.kernels import (  # noqa: F401 - they declare
    attention,
    fused,
    linear,
    quantized,
    rowwise,
    sampling,
)
from cuda_cupy.kernels.declare import kernels

__all__ = ["kernels"]
