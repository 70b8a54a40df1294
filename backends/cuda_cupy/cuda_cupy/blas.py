"""Computes matrix products by cuBLAS, on the backend's stream.

The library is called by ctypes with everything packed beforehand, as kernels are (launch.py):
CuPy's binding takes some 25 µs a call, and a prompt waits for the host. Source: the cuBLAS API,
cublasGemmEx, https://docs.nvidia.com/cuda/cublas.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

from core.errors import BackendError
from cuda_cupy.device import device

_TRANSPOSED, _AS_IT_IS = 1, 0  # CUBLAS_OP_T, CUBLAS_OP_N
_CUDA_TYPES = {"float32": 0, "float16": 2, "uint16": 14}  # CUDA_R_32F, CUDA_R_16F, CUDA_R_16BF
_COMPUTE_32F = 68  # sums in float32; of float32 inputs also products, that is, without TF32
_COMPUTE_TF32 = 77  # products of inputs rounded to 10 bits, on tensor cores; sums in float32
_DEFAULT_ALGORITHM = -1
_NO_REDUCED_PRECISION = 16  # 16-bit partial sums are never added up in 16 bits

_NUMBERS = (ctypes.c_float * 2)(0, 1)
_ZERO, _ONE = ctypes.addressof(_NUMBERS), ctypes.addressof(_NUMBERS) + 4


@cache
def _library() -> tuple[Any, int]:
    """Return (cublasGemmEx, a handle). CuPy has loaded the library by then, wherever it lies."""
    from cuda.pathfinder import load_nvidia_dynamic_lib
    from cupy.cuda import cublas
    handle = cublas.create()
    cublas.setMathMode(handle, _NO_REDUCED_PRECISION)
    cublas.setStream(handle, device().stream.ptr)
    call = ctypes.CDLL(load_nvidia_dynamic_lib("cublas").abs_path).cublasGemmEx
    pointer, number = ctypes.c_void_p, ctypes.c_int
    matrix = (pointer, number, number)  # address, type, elements from one row to the next
    call.argtypes = (pointer, *(number,) * 5, pointer, *matrix, *matrix, pointer, *matrix, number,
                     number)
    call.restype = number
    return call, handle


def product(x: Any, weight: Any, out: Any, *, add: bool,  # noqa: ANN401 - cupy arrays
            tf32: bool = False) -> Callable[[], None]:
    """Return a launch of out = x @ weight.T, or out += x @ weight.T with `add`."""
    (tokens, width), columns = x.shape, weight.shape[0]
    kinds = [_CUDA_TYPES[a.dtype.name] for a in (weight, x, out)]
    # cuBLAS counts columns first, hence the order
    arguments = (_TRANSPOSED, _AS_IT_IS, columns, tokens, width,
                 _ONE, weight.data.ptr, kinds[0], width, x.data.ptr, kinds[1], width,
                 _ONE if add else _ZERO, out.data.ptr, kinds[2], columns,
                 _COMPUTE_TF32 if tf32 else _COMPUTE_32F, _DEFAULT_ALGORITHM)
    kept = (x, weight, out)

    def run() -> None:
        call, handle = _library()
        status = call(handle, *arguments)
        if status:
            raise BackendError(f"cuda_cupy: cublasGemmEx of {tokens} x {width} by {columns} failed "
                               f"with status {status}")
    run.kept = kept  # type: ignore[attr-defined] - what the addresses point to
    return run
