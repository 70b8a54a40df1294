"""Computes matrix products by cuBLAS, on the backend's stream.

The library is called by ctypes with everything packed beforehand, as kernels are (launch.py):
CuPy's binding takes some 25 µs a call, and a prompt waits for the host. Source: the cuBLAS API,
cublasGemmEx, https://docs.nvidia.com/cuda/cublas.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from core import cuda
from core.errors import BackendError
from cuda_cupy.device import device, gpu

_TRANSPOSED, _AS_IT_IS = 1, 0  # CUBLAS_OP_T, CUBLAS_OP_N
_CUDA_TYPES = {"float32": 0, "float16": 2, "uint16": 14}  # CUDA_R_32F, CUDA_R_16F, CUDA_R_16BF
_COMPUTE_32F = 68  # sums in float32; of float32 inputs also products, that is, without TF32
_COMPUTE_TF32 = 77  # products of inputs rounded to 10 bits, on tensor cores; sums in float32
_DEFAULT_ALGORITHM = -1
_NO_REDUCED_PRECISION = 16  # 16-bit partial sums are never added up in 16 bits

_NUMBERS = (ctypes.c_float * 2)(0, 1)
_ZERO, _ONE = ctypes.addressof(_NUMBERS), ctypes.addressof(_NUMBERS) + 4


@cache
def _library() -> tuple[Any, Any, int]:
    """Return (cublasGemmEx, cublasGemmStridedBatchedEx, a handle). CuPy has loaded the library by
    then, wherever it lies."""
    from cuda.pathfinder import load_nvidia_dynamic_lib
    from cupy.cuda import cublas
    with gpu:
        handle = cublas.create()
        cublas.setMathMode(handle, _NO_REDUCED_PRECISION)
        cublas.setStream(handle, device().stream.ptr)
    library = ctypes.CDLL(load_nvidia_dynamic_lib("cublas").abs_path)
    call, batched = library.cublasGemmEx, library.cublasGemmStridedBatchedEx
    pointer, number, stride = ctypes.c_void_p, ctypes.c_int, ctypes.c_longlong
    matrix = (pointer, number, number)  # address, type, elements from one row to the next
    call.argtypes = (pointer, *(number,) * 5, pointer, *matrix, *matrix, pointer, *matrix, number,
                     number)
    batched.argtypes = (pointer, *(number,) * 5, pointer, *matrix, stride, *matrix, stride, pointer,
                        *matrix, stride, number, number, number)
    call.restype = batched.restype = number
    return call, batched, handle


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
    return _launch(0, arguments, (x, weight, out), f"cublasGemmEx of {tokens} x {width} by "
                   f"{columns}")


def products(x: Any, weights: Sequence[Any], outs: Sequence[Any]) -> Callable[[], None]:  # noqa: ANN401
    """Return a launch of out = x @ weight.T for two weights of one shape, wherever they lie: a
    batch of two, whose strides are the distances between them."""
    (tokens, width), columns = x.shape, weights[0].shape[0]
    kinds = [_CUDA_TYPES[a.dtype.name] for a in (weights[0], x, outs[0])]
    if weights[1].data.ptr < weights[0].data.ptr:
        weights, outs = weights[::-1], outs[::-1]
    apart = [(two.data.ptr - one.data.ptr) // one.itemsize for one, two in (weights, outs)]
    if apart[1] < 0:
        return cuda.sequence(*(product(x, w, o, add=False)
                               for w, o in zip(weights, outs, strict=True)))
    arguments = (_TRANSPOSED, _AS_IT_IS, columns, tokens, width,
                 _ONE, weights[0].data.ptr, kinds[0], width, apart[0],
                 x.data.ptr, kinds[1], width, 0,
                 _ZERO, outs[0].data.ptr, kinds[2], columns, apart[1], 2,
                 _COMPUTE_32F, _DEFAULT_ALGORITHM)
    return _launch(1, arguments, (x, *weights, *outs),
                   f"cublasGemmStridedBatchedEx of {tokens} x {width} by 2 x {columns}")


def _launch(which: int, arguments: tuple[Any, ...], kept: Any, what: str,  # noqa: ANN401
            ) -> Callable[[], None]:
    *calls, handle = _library()  # made here: the first launch may be part of a capture
    call = calls[which]

    def run() -> None:
        status = call(handle, *arguments)
        if status:
            raise BackendError(f"cuda_cupy: {what} failed with status {status}")
    run.kept = kept  # type: ignore[attr-defined] - what the addresses point to
    return run
