"""Dot products of rows of nibbles for a single vector, 64 bytes of codes at a time.

As in `groups`, but each lane takes the eight codes of a 32-bit word in turn, so that unpacking them
is a shift and a look-up. x is put into that order once a call.
"""

import numpy as np
from numba import njit, prange

from cpu_numba.kernels.compiled.groups import group_sums, offset
from cpu_numba.kernels.compiled.lanes import ahead, fma, splat, spread, total
from cpu_numba.kernels.compiled.nibbles import words_times

CODES = 128  # of 64 bytes


@njit
def turn(x, turned, size):
    """turned[128 * c + 16 * j + lane] = x[128 * c + 8 * lane + j]."""
    for c in range(0, size, CODES):
        for j in range(8):
            for lane in range(16):
                turned[c + 16 * j + lane] = x[c + 8 * lane + j]


@njit
def scales_of(scales, place, group):
    """The scales of the lanes of 64 bytes of codes."""
    if group == 32:
        return spread(scales, place, 4)
    if group == 64:
        return spread(scales, place, 2)
    return spread(scales, place, 1)


@njit
def row_words(codes, scales, zeros, bias, out, sums, turned, size, group, n):
    """out[n]: a row of `size` nibbles in groups of 32, 64 or a multiple of 128."""
    groups = -(-size // group)
    row, place, span = splat(np.float32(0)), n * groups, max(group, CODES)
    for begin in range(0, size, span):
        for i in range(begin, min(size, begin + span), CODES):
            at = n * (size // 2) + i // 2
            ahead(codes, at)
            row = fma(words_times(codes, at, turned, i), scales_of(scales, place, group), row)
        place += span // group
    y = total(row)
    if zeros.size:
        y -= offset(scales, zeros, np.float32(8), n * groups, sums, 0, groups)
    out[n] = y + bias[n] if bias.size else y


@njit(parallel=True, cache=True)
def product(x, codes, scales, zeros, bias, out, sums, turned, rows, size, group, alone):
    """out[n] = x · w[n] + bias[n]; on one thread if `alone`."""
    if zeros.size:
        group_sums(x, sums, 1, size, group)
    turn(x, turned, size)
    if alone:
        for n in range(rows):
            row_words(codes, scales, zeros, bias, out, sums, turned, size, group, n)
    else:
        for n in prange(rows):
            row_words(codes, scales, zeros, bias, out, sums, turned, size, group, n)
