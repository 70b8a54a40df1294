"""Matrix products by cuBLAS, on the backend's stream."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from cuda_cupy.device import device

_CUDA_TYPES = {"float32": 0, "float16": 2, "uint16": 14}  # CUDA_R_32F, CUDA_R_16F, CUDA_R_16BF
_COMPUTE_32F = 68  # sums in float32; of float32 inputs also products, that is, without TF32
_COMPUTE_TF32 = 77  # products of inputs rounded to 10 bits, on tensor cores; sums in float32
_DEFAULT_ALGORITHM = -1
_NO_REDUCED_PRECISION = 16  # 16-bit partial sums are never added up in 16 bits


@cache
def _handle() -> tuple[Any, int, Any]:
    """(the cuBLAS module, a handle, the numbers 0 and 1)."""
    from cupy.cuda import cublas
    handle = cublas.create()
    cublas.setMathMode(handle, _NO_REDUCED_PRECISION)
    return cublas, handle, np.array([0, 1], np.float32)


def product(x: Any, weight: Any, out: Any, *, add: bool,  # noqa: ANN401 - cupy arrays
            tf32: bool = False) -> None:
    """out = x @ weight.T, or out += with `add`. cuBLAS counts columns first, hence the order."""
    cublas, handle, numbers = _handle()
    (tokens, width), columns = x.shape, weight.shape[0]
    one, beta = numbers.ctypes.data + 4, numbers.ctypes.data + 4 * add
    kinds = [_CUDA_TYPES[a.dtype.name] for a in (weight, x, out)]
    with device().stream:  # each call of CuPy's binding moves the handle to the current stream
        cublas.gemmEx(handle, cublas.CUBLAS_OP_T, cublas.CUBLAS_OP_N, columns, tokens, width, one,
                      weight.data.ptr, kinds[0], width, x.data.ptr, kinds[1], width, beta,
                      out.data.ptr, kinds[2], columns, _COMPUTE_TF32 if tf32 else _COMPUTE_32F,
                      _DEFAULT_ALGORITHM)
