"""Dot products of rows of nibbles in integers (see `integers`), 64 bytes of codes at a time.

Codes run from 0 to 15 and their middle, 8, is what zeros count from: each lane begins its sum at
minus 8 times the integers of x that it will meet. For the rest see `int8`.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit, prange

from cpu_numba.kernels.compiled.groups import group_sums, leave
from cpu_numba.kernels.compiled.integers import floats, load_words, nibbles_times
from cpu_numba.kernels.compiled.lanes import ahead, fma, load, splat, spread, total
from cpu_numba.kernels.compiled.rounding import FINER, GROUPS, round_row
from cpu_numba.kernels.compiled.share import claim

CODES = 128  # of 64 bytes


class Turned(NamedTuple):
    """x as lanes meet it: int16 [T,K], where their sums begin int32 [T,K/8], both again or None,
    and their scales float32 [T,K/8]."""

    first: Any
    begins: Any
    second: Any
    second_begins: Any
    scales: Any


@njit(_nrt=False)
def turn(whole, turned, begins, start, size):
    """The order in which halves of lanes meet the codes of their word: turned[128 * c + 32 * j + h]
    = whole[128 * c + 4 * h + j]; and where each lane's sum begins."""
    if whole is None:
        return
    for c in range(start, start + size, CODES):
        for j in range(4):
            for h in range(32):
                turned[c + 32 * j + h] = whole[c + 4 * h + j]
        for lane in range(16):
            met = 0
            for i in range(8):
                met += whole[c + 8 * lane + i]
            begins[c // 8 + lane] = -8 * met


@njit(_nrt=False)
def prepare(x, t, size, group, rounded, turned):
    round_row(x, t, size, group, rounded)
    turn(rounded.first, turned.first, turned.begins, t * size, size)
    turn(rounded.second, turned.second, turned.second_begins, t * size, size)
    for i in range(size // 8):
        turned.scales[t * size // 8 + i] = rounded.scales[t * -(-size // group) + 8 * i // group]


def _make(group):
    """dot(...) for that size of groups, so that how scales spread over lanes is decided when it is
    compiled."""
    parts = max(1, CODES // group)

    @njit(_nrt=False)
    def dot(first, begins, second, second_begins, x_scales, t, codes, scales, n, size):
        """The product of token t with row n."""
        p, rest = splat(np.float32(0)), splat(np.float32(1) / FINER)
        for k in range(0, size, CODES):
            i, at = (n * size + k) // 2, t * size + k
            ahead(codes, i, 64, 4096)
            y = floats(nibbles_times(codes, i, first, at, load_words(begins, at // 8)))
            if second is not None:
                finer = nibbles_times(codes, i, second, at, load_words(second_begins, at // 8))
                y = fma(floats(finer), rest, y)
            scale = spread(scales, (n * size + k) // group, parts) * load(x_scales, at // 8)
            p = fma(y, scale, p)
        return total(p)
    return dot


by_32, by_64, by_128 = (_make(group) for group in GROUPS)


@njit(_nrt=False)
def row(first, begins, second, second_begins, x_scales, codes, scales, zeros, bias, out, sums,
        tokens, rows, size, group, groups, n):
    """out[:, n]."""
    for t in range(tokens):
        if group == 32:
            y = by_32(first, begins, second, second_begins, x_scales, t, codes, scales, n, size)
        elif group == 64:
            y = by_64(first, begins, second, second_begins, x_scales, t, codes, scales, n, size)
        else:
            y = by_128(first, begins, second, second_begins, x_scales, t, codes, scales, n, size)
        leave(y, scales, zeros, bias, out, sums, rows, groups, np.float32(8), t, n)


@njit(_nrt=False)
def share(x, codes, scales, zeros, bias, out, sums, tokens, rows, size, group, counter, piece):
    first, begins, second, second_begins, x_scales = x
    groups, n = -(-size // group), claim(counter, piece)
    while n < rows:
        for i in range(n, min(rows, n + piece)):
            row(first, begins, second, second_begins, x_scales, codes, scales, zeros, bias, out,
                sums, tokens, rows, size, group, groups, i)
        n = claim(counter, piece)


@njit(parallel=True, cache=True)
def product(x, codes, scales, zeros, bias, out, sums, rounded, turned, tokens, rows, size, group,
            threads, counter, piece):
    """out[t,n] = x[t] · w[n] + bias[n], shared by `threads`; `rounded` and `turned` are scratch for
    x."""
    counter[0] = 0
    if zeros.size:
        group_sums(x, sums, tokens, size, group)
    for t in range(tokens):
        prepare(x, t, size, group, rounded, turned)
    if threads == 1:
        share(turned, codes, scales, zeros, bias, out, sums, tokens, rows, size, group, counter,
              piece)
    else:
        for _ in prange(threads):
            share(turned, codes, scales, zeros, bias, out, sums, tokens, rows, size, group, counter,
                  piece)
