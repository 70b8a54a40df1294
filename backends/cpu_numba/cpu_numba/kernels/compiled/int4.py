"""Computes dot products of rows of nibbles in integers (see `integers`), 64 bytes of codes at a
time.

Codes run from 0 to 15 and their middle, 8, is what zeros count from: each lane begins its sum at
minus 8 times the integers of x that it will meet. For the rest see `int8`.
"""

from typing import Any, NamedTuple

import numpy as np

from cpu_numba.kernels.compiled.activations import gated_one
from cpu_numba.kernels.compiled.groups import group_sums, settle
from cpu_numba.kernels.compiled.integers import floats, load_words, nibbles_times
from cpu_numba.kernels.compiled.jit import njit
from cpu_numba.kernels.compiled.naming import named
from cpu_numba.kernels.compiled.rounding import FINER, GROUPS, round_row
from cpu_numba.kernels.compiled.rows import add_norm_wide
from cpu_numba.kernels.compiled.simd import fma, load, prefetch, put, splat, spread, total
from cpu_numba.kernels.compiled.work_queue import shared, shared_rows

CODES = 128  # of 64 bytes


class Transposed(NamedTuple):
    """Holds x as lanes meet it: int16 [T,K], where their sums begin int32 [T,K/8], both again or
    None, and their scales float32 [T,K/8]; the sums of x's groups."""

    first: Any
    begins: Any
    second: Any
    second_begins: Any
    scales: Any
    sums: Any


@njit(_nrt=False)
def transpose(whole, transposed, begins, start, size, middle):
    """Put halves of lanes into the order in which they meet the codes of their word:
    transposed[128 * c + 32 * j + h] = whole[128 * c + 4 * h + j]; and note where each lane's sum
    begins, at minus `middle` times what it meets. A row may end short of whole pieces."""
    if whole is None:
        return
    for c in range(start, start + size // CODES * CODES, CODES):
        for j in range(4):
            for h in range(32):
                transposed[c + 32 * j + h] = whole[c + 4 * h + j]
        for lane in range(16):
            met = 0
            for i in range(8):
                met += whole[c + 8 * lane + i]
            begins[c // 8 + lane] = -middle * met


def _make(group):
    """Make dot(...) for that size of groups, so that how scales spread over lanes is decided when
    it is compiled."""
    parts = max(1, CODES // group)

    @njit(_nrt=False, forceinline=True)
    @named("dot", group)
    def dot(first, begins, second, second_begins, x_scales, t, codes, scales, n, size):
        """Return the product of token t with row n."""
        p, rest = splat(np.float32(0)), splat(np.float32(1) / FINER)
        for k in range(0, size, CODES):
            i, at = (n * size + k) // 2, t * size + k
            prefetch(codes, i, 64, 4096)
            y = floats(nibbles_times(codes, i, first, at, load_words(begins, at // 8)))
            if second is not None:
                finer = nibbles_times(codes, i, second, at, load_words(second_begins, at // 8))
                y = fma(floats(finer), rest, y)
            scale = spread(scales, (n * size + k) // group, parts) * load(x_scales, at // 8)
            p = fma(y, scale, p)
        return total(p)
    return dot


by_32, by_64, by_128 = (_make(group) for group in GROUPS)


@njit(_nrt=False, forceinline=True)
def settled(x, t, size, group, matrix, n):
    """Return the product of token t with row n, less what the zeros take off."""
    one, begins, two, more, lanes, sums = x  # as arguments: only of them Numba knows what is None
    if group == 32:
        y = by_32(one, begins, two, more, lanes, t, matrix.codes, matrix.scales, n, size)
    elif group == 64:
        y = by_64(one, begins, two, more, lanes, t, matrix.codes, matrix.scales, n, size)
    else:
        y = by_128(one, begins, two, more, lanes, t, matrix.codes, matrix.scales, n, size)
    return settle(y, matrix.scales, matrix.zeros, sums, -(-size // group), np.float32(8), t, n)


@njit(_nrt=False, forceinline=True)
def row(n, x, matrix, sizes):
    """Compute out[:, n]."""
    tokens, size, group = sizes
    for t in range(tokens):
        y = settled(x, t, size, group, matrix, n)
        put(matrix.out, t * matrix.rows + n, y + matrix.bias[n] if matrix.bias.size else y)


@njit(_nrt=False, forceinline=True)
def gated_row(n, x, gate, up, _, sizes):
    tokens, size, group = sizes
    for t in range(tokens):
        g, u = settled(x, t, size, group, gate, n), settled(x, t, size, group, up, n)
        put(gate.out, t * gate.rows + n, gated_one(g, u))


_products, _gated = shared_rows(row), shared(gated_row)


@njit(_nrt=False)
def prepare(x, scratch, transposed, zeros, tokens, size, group):
    """Return x in integers, as lanes meet them and, if there are zeros, the sums of its groups."""
    if zeros:
        group_sums(x, scratch.sums, tokens, size, group)
    for t in range(tokens):
        round_row(x, t, size, group, scratch)
        transpose(scratch.first, transposed.first, transposed.begins, t * size, size, 8)
        transpose(scratch.second, transposed.second, transposed.second_begins, t * size, size,
                  8)
        for i in range(size // 8):
            transposed.scales[t * size // 8 + i] = scratch.scales[t * -(-size // group)
                                                                  + 8 * i // group]


@njit
def products(how, x, scratch, transposed, first, second, third, sizes):
    """Compute out[t,n] = x[t] · w[n] + bias[n], of one to three matrices. `scratch` and
    `transposed` are for x, `sizes` are T, K and the columns of a group."""
    prepare(x, scratch, transposed, first.zeros.size + second.zeros.size + third.zeros.size, *sizes)
    _products(how, transposed, first, second, third, sizes)


@njit
def normed_gated_product(how, a, b, norm, added, h, eps, scratch, transposed, gate, up, sizes):
    """Compute gate.out[t,n] = silu(h[t] · gate[n]) * (h[t] · up[n]), h = norm(a + b), added = a +
    b."""
    tokens, size, group = sizes
    add_norm_wide(a, b, norm, added, h, tokens, size, eps)
    prepare(h, scratch, transposed, gate.zeros.size + up.zeros.size, tokens, size, group)
    _gated(how, transposed, gate, up, up, sizes)
