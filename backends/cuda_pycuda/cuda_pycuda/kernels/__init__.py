"""Every kernel of cuda_pycuda. Importing a family's module declares its kernels in `kernels`."""

from cuda_pycuda.kernels import (  # noqa: F401 - they declare
    attention,
    fused,
    linear,
    quantized,
    rowwise,
    sampling,
)
from cuda_pycuda.kernels.declare import kernels

__all__ = ["kernels"]
