"""Describes matrices to the GPU's copy engine, which brings boxes of them to shared memory.

Source: the CUDA driver API, cuTensorMapEncodeTiled. Hopper has the engine, as have later GPUs.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any

from core.errors import BackendError
from cuda_cupy.launch import open_driver

_BYTES, _ALIGNMENT = 128, 64
_UINT16 = 1  # CU_TENSOR_MAP_DATA_TYPE_UINT16: bits are copied; zeros beyond the matrix
_NO_INTERLEAVE, _SWIZZLE_128B, _L2_256B, _ZEROS = 0, 3, 3, 0


@cache
def _encode() -> Any:  # noqa: ANN401 - a ctypes function
    call = open_driver().cuTensorMapEncodeTiled
    pointer, number = ctypes.c_void_p, ctypes.c_int
    call.argtypes = (pointer, number, ctypes.c_uint, *(pointer,) * 5, *(number,) * 4)
    call.restype = number
    return call


def tensor_map(address: int, sizes: Sequence[int], box: Sequence[int]) -> Any:  # noqa: ANN401
    """Return a CUtensorMap of an array of 16-bit elements that lie without gaps.

    address  of the first element, a multiple of 16
    sizes    elements along each dimension, the contiguous one first
    box      elements of a copy along each; the first has 64, a swizzled row of 128 bytes
    """
    rank = len(sizes)
    strides, stride = [], 2
    for size in sizes[:-1]:
        stride *= size
        strides.append(stride)
    room = ctypes.create_string_buffer(_BYTES + _ALIGNMENT)
    made = (ctypes.c_byte * _BYTES).from_buffer(room, -ctypes.addressof(room) % _ALIGNMENT)
    numbers = [(kind * len(values))(*values) for kind, values in (
        (ctypes.c_uint64, sizes), (ctypes.c_uint64, strides), (ctypes.c_uint32, box),
        (ctypes.c_uint32, [1] * rank))]
    status = _encode()(made, _UINT16, rank, address, *numbers, _NO_INTERLEAVE, _SWIZZLE_128B,
                       _L2_256B, _ZEROS)
    if status:
        raise BackendError(f"cuda_cupy: a tensor map of {list(sizes)} elements in boxes of "
                           f"{list(box)} failed with driver error {status}")
    return made
