"""Rows of integer codes as float32: scale * (code - zero), group by group."""

import numpy as np
from numba import njit

from cpu_numba.kernels.compiled.lanes import load, load_some, splat, store, store_some
from cpu_numba.kernels.compiled.nibbles import high, low, store_pairs


@njit
def codes_row(codes, start, scales, zeros, place, group, column, size, out, at):
    """out[at:at + size] = columns column .. column + size - 1 of the row whose codes begin at
    `start` and whose scales at `place`."""
    i, end = column, column + size
    while i < end:
        g = i // group
        last = min(end, (g + 1) * group)
        scale = splat(scales[place + g])
        zero = splat(zeros[place + g] if zeros.size else np.float32(0))
        while i + 16 <= last:
            store(out, at + i - column, (load(codes, start + i) - zero) * scale)
            i += 16
        if i < last:
            rest = (load_some(codes, start + i, last - i) - zero) * scale
            store_some(out, at + i - column, rest, last - i)
            i = last


@njit
def nibbles_row(codes, start, scales, zeros, place, group, column, size, out, at):
    """The same over nibbles. `column` and `group` are even; the padding of an odd size is left
    out."""
    i, end = column, column + size
    while i < end:
        g = i // group
        last = min(end, (g + 1) * group)
        scale, zero = scales[place + g], zeros[place + g] if zeros.size else np.float32(8)
        even, odd = splat(scale), splat(scale * np.float32(1 / 16))
        low_zero = splat(zero - np.float32(8))
        high_zero = low_zero * splat(np.float32(16))
        while i + 32 <= last:
            here = start + i // 2
            store_pairs(out, at + i - column, (low(codes, here) - low_zero) * even,
                        (high(codes, here) - high_zero) * odd)
            i += 32
        while i < last:
            code = codes[start + i // 2]
            code = code >> 4 if i % 2 else code & 15
            out[at + i - column] = (np.float32(code) - zero) * scale
            i += 1
