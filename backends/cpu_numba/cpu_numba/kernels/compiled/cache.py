"""Writes rows of keys and values into the paged cache, in its own type."""

import numpy as np
from numba import types
from numba.extending import overload

from cpu_numba.kernels.compiled.jit import njit
from cpu_numba.kernels.compiled.rows import convert_row
from cpu_numba.kernels.compiled.simd import get


def put(row, start, cache, at, scales, place, size):
    """Set cache[at:at + size] = row[start:start + size]; codes with their scale, if it holds
    codes."""


@overload(put)
def _put(row, start, cache, at, scales, place, size):
    return _put_codes if cache.dtype == types.int8 else _put_floats


def _put_floats(row, start, cache, at, scales, place, size):
    convert_row(row, start, cache, at, size)


def _put_codes(row, start, cache, at, scales, place, size):
    peak = np.float32(0)
    for i in range(start, start + size):
        peak = max(peak, abs(get(row, i)))
    scale = peak / np.float32(127) if peak > 0 else np.float32(1)
    scales[place] = scale
    for i in range(size):
        code = np.rint(get(row, start + i) / scale)
        cache[at + i] = np.int8(min(max(code, np.float32(-127)), np.float32(127)))


@njit
def write(k, v, cache, scales, slots, tokens, heads, size):
    """Write both sides of every token with a slot; `cache` and `scales` hold keys, then values."""
    values, value_scales = cache.size // 2, scales.size // 2
    for t in range(tokens):
        if slots[t] < 0:
            continue
        for h in range(heads):
            row = (t * heads + h) * size
            place = slots[t] * heads + h
            put(k, row, cache, place * size, scales, place, size)
            put(v, row, cache, values + place * size, scales, value_scales + place, size)
