"""Packs launches beforehand, so that each is a single call into the driver.

CuPy offers no `cuLaunchKernelEx`, which programmatic dependent launch needs, so this module calls
the driver itself. From compute capability 9.0 on, every kernel of this backend may start while the
one before it still runs; each waits, by `pdl_wait`, before it reads what others wrote.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from functools import cache
from typing import Any

from core import cuda
from core.errors import BackendError
from cuda_cupy.compiler import load
from cuda_cupy.device import device
from cuda_cupy.device import gpu as one_gpu

_STATIC_SHARED = 48 * 1024  # more dynamic shared memory than this must be asked for
_SERIALIZATION = 6  # CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
_MAX_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES


class _Attribute(ctypes.Structure):
    _fields_ = (("id", ctypes.c_uint), ("pad", ctypes.c_uint), ("value", ctypes.c_int * 16))


class _Config(ctypes.Structure):
    _fields_ = (("grid", ctypes.c_uint * 3), ("block", ctypes.c_uint * 3),
                ("shared", ctypes.c_uint), ("stream", ctypes.c_void_p),
                ("attributes", ctypes.POINTER(_Attribute)), ("count", ctypes.c_uint))


@cache
def open_driver() -> ctypes.CDLL:
    """Return the driver's library."""
    return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")


@cache
def _driver() -> Any:  # noqa: ANN401 - a ctypes function
    call = open_driver().cuLaunchKernelEx
    call.argtypes = (ctypes.c_void_p,) * 4
    call.restype = ctypes.c_int
    return call


@cache
def _attributes() -> Any:  # noqa: ANN401 - a ctypes array
    attribute = (_Attribute * 1)()
    attribute[0].id = _SERIALIZATION
    attribute[0].value[0] = 1
    return attribute


def launch(file: str, entry: str, grid: Sequence[int], threads: int, arguments: Sequence[Any], *,
           defines: cuda.Defines, shared: int = 0) -> cuda.Launch:
    """Compile, load and pack a kernel; the result launches it.

    arguments  arrays (None is a null pointer), ints (int), Longs (long long), floats (float),
               tensor maps
    """
    if 0 in grid:
        return cuda.nothing
    function = load(file, entry, defines)
    if shared > _STATIC_SHARED:
        from cupy.cuda import driver
        with one_gpu:
            driver.funcSetAttribute(function.ptr, _MAX_DYNAMIC_SHARED, shared)
    gpu = device()
    config = _Config((ctypes.c_uint * 3)(*grid, *(1,) * (3 - len(grid))),
                     (ctypes.c_uint * 3)(threads, 1, 1), shared, gpu.stream.ptr, _attributes(),
                     1 if gpu.arch >= 90 else 0)
    values = [_pack(a) for a in arguments]
    pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(v) for v in values))
    call, where, code = _driver(), ctypes.addressof(config), function.ptr
    packed = ctypes.addressof(pointers)
    kept = (config, values, pointers, function, arguments)

    def run() -> None:
        status = call(where, code, packed, None)
        if status:
            raise BackendError(f"cuda_cupy: launching {entry} of {file} with grid {tuple(grid)} x "
                               f"{threads} threads failed with driver error {status}")
    run.kept = kept  # type: ignore[attr-defined] - what the driver reads by address
    return run


def _pack(value: Any) -> Any:  # noqa: ANN401 - a ctypes scalar
    if value is None:
        return ctypes.c_void_p(0)
    if isinstance(value, ctypes.Array):  # a structure's bytes
        return value
    if isinstance(value, cuda.Long):
        return ctypes.c_longlong(value)
    if isinstance(value, int):
        return ctypes.c_int(value)
    if isinstance(value, float):
        return ctypes.c_float(value)
    return ctypes.c_void_p(value.data.ptr)


_TYPES = {"float32": "float", "float16": "f16", "uint16": "bf16", "int8": "i8", "uint8": "u8",
          "int32": "int"}


def c_type(array: Any) -> str:  # noqa: ANN401 - a cupy array
    """Return the CUDA type of an array's elements, as `cuda/common.cuh` names it."""
    return _TYPES[array.dtype.name]
