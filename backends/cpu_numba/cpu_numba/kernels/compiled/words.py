"""Dot products of rows of nibbles for a single vector, 64 bytes of codes at a time.

As in `groups`, but each lane takes the eight codes of a 32-bit word in turn, so that unpacking them
is a shift and a look-up, one for two codes where x is bf16 and the machine multiplies pairs. x is
put into that order once a call.
"""

import numpy as np
from numba import njit, prange

from cpu_numba.kernels.compiled.groups import group_sums, leave
from cpu_numba.kernels.compiled.lanes import fma, get, put, splat, spread, total
from cpu_numba.kernels.compiled.nibbles import words_times
from cpu_numba.kernels.compiled.share import claim

CODES = 128  # of 64 bytes


@njit
def turn(x, turned, size, pairs):
    """The order in which lanes meet the codes of their word: turned[128 * c + 16 * j + lane] =
    x[128 * c + 8 * lane + j], or with pairs, which take a code of each half of the word,
    turned[128 * c + 32 * j + 2 * lane + half] = x[128 * c + 8 * lane + 4 * half + j]."""
    for c in range(0, size, CODES):
        for lane in range(16):
            for j in range(8):
                to = 32 * (j % 4) + 2 * lane + j // 4 if pairs else 16 * j + lane
                put(turned, c + to, get(x, c + 8 * lane + j))


@njit
def scales_of(scales, place, group):
    """The scales of the lanes of 64 bytes of codes."""
    if group == 32:
        return spread(scales, place, 4)
    if group == 64:
        return spread(scales, place, 2)
    return spread(scales, place, 1)


@njit
def dots(codes, i, j, scales, place, other, turned, size, group):
    """The products of x with the rows whose codes begin at i and j, and whose scales at `place`
    and `other`."""
    p = splat(np.float32(0))
    q, span = p, max(group, CODES)
    for begin in range(0, size, span):
        for k in range(begin, min(size, begin + span), CODES):
            p = fma(words_times(codes, i + k // 2, turned, k), scales_of(scales, place, group), p)
            q = fma(words_times(codes, j + k // 2, turned, k), scales_of(scales, other, group), q)
        place, other = place + span // group, other + span // group
    return total(p), total(q)


@njit
def rows_words(codes, scales, zeros, bias, out, sums, turned, rows, size, group, n):
    """out[n] and, half the rows on, out[m] (see `dot`): rows of `size` nibbles in groups of 32, 64
    or a multiple of 128."""
    groups, m = -(-size // group), n + (rows + 1) // 2
    last = min(m, rows - 1)
    y, z = dots(codes, n * (size // 2), last * (size // 2), scales, n * groups, last * groups,
                turned, size, group)
    leave(y, scales, zeros, bias, out, sums, rows, groups, np.float32(8), 0, n)
    if m < rows:
        leave(z, scales, zeros, bias, out, sums, rows, groups, np.float32(8), 0, m)


@njit
def share(codes, scales, zeros, bias, out, sums, turned, rows, size, group, counter, piece):
    half, n = (rows + 1) // 2, claim(counter, piece)
    while n < half:
        for i in range(n, min(half, n + piece)):
            rows_words(codes, scales, zeros, bias, out, sums, turned, rows, size, group, i)
        n = claim(counter, piece)


@njit(parallel=True, cache=True)
def product(x, codes, scales, zeros, bias, out, sums, turned, rows, size, group, pairs, threads,
            counter, piece):
    """out[n] = x · w[n] + bias[n], shared by `threads`. `turned` is scratch for x, in bf16 if
    `pairs`."""
    counter[0] = 0
    if zeros.size:
        group_sums(x, sums, 1, size, group)
    turn(x, turned, size, pairs)
    if threads == 1:
        share(codes, scales, zeros, bias, out, sums, turned, rows, size, group, counter, piece)
    else:
        for _ in prange(threads):
            share(codes, scales, zeros, bias, out, sums, turned, rows, size, group, counter, piece)
