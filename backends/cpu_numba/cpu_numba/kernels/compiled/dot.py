"""Computes dot products of rows of weight matrices, widened in registers.

Two rows that lie far apart are read at once: from two places memory gave a sixth more than from
one, prefetched or not (medians of 32.0 and 27.5 GB/s on two cores of Zen 4).
"""

from typing import Any, NamedTuple

import numpy as np

from cpu_numba.kernels.compiled.activations import gated_one, silu_lanes
from cpu_numba.kernels.compiled.four import (
    FEWEST,
    TOKENS,
    add_sums,
    no_sums,
    places_of,
    pulled,
    pushed,
    put_four,
    second_row,
    some_times_four,
    times_four,
    totals,
)
from cpu_numba.kernels.compiled.jit import njit
from cpu_numba.kernels.compiled.rows import add_norm_wide
from cpu_numba.kernels.compiled.simd import fma, load_some, prefetch, put, splat, times, total
from cpu_numba.kernels.compiled.work_queue import shared, shared_rows


class Matrix(NamedTuple):
    """Holds what a product takes beside x: weight [N,K], bias [N] or empty, out [T,N], N, and how
    many pieces of work it is."""

    weight: Any
    bias: Any
    out: Any
    rows: int
    pieces: int


@njit(_nrt=False, forceinline=True)
def dots(a, i, b, j, x, first, size):
    """Return the products of `size` elements of x with those of a from i on, and of b from j on."""
    p = splat(np.float32(0))
    q, r, s = p, p, p  # four sums hide the latency of an addition
    whole = size // 64 * 64
    for k in range(0, whole, 64):
        prefetch(a, i + k, 64, 1024)
        prefetch(b, j + k, 64, 1024)
        p = times(a, i + k, x, first + k, p)
        q = times(b, j + k, x, first + k, q)
        r = times(a, i + k + 32, x, first + k + 32, r)
        s = times(b, j + k + 32, x, first + k + 32, s)
    for k in range(whole, size, 16):
        some = min(16, size - k)
        value = load_some(x, first + k, some)
        p = fma(load_some(a, i + k, some), value, p)
        q = fma(load_some(b, j + k, some), value, q)
    return total(p + r), total(q + s)


@njit(_nrt=False, forceinline=True)
def dots_of_four(a, i, b, j, x, t, tokens, size):
    """Return what `dots` does for four tokens from t on, in lanes: see `four`."""
    p, places, whole = no_sums(), places_of(t, tokens, size, 0), size // 64 * 64
    q = p
    for k in range(0, whole, 64):
        prefetch(a, i + k, 64, 1024)
        prefetch(b, j + k, 64, 1024)
        p = times_four(a, i + k, b, j + k, x, k, places, p)
        q = times_four(a, i + k + 32, b, j + k + 32, x, k + 32, places, q)
    for k in range(whole, size, 16):
        p = some_times_four(a, i + k, b, j + k, x, k, places, p, size - k)
    return totals(add_sums(p, q))


@njit(_nrt=False, forceinline=True)
def two_rows(n, x, matrix, sizes):
    """Compute out[:, n] and, half the rows on, out[:, m], which stay in the cache for all tokens.
    Of an odd number of rows the last is computed twice, with the same bits."""
    tokens, size = sizes
    weight, bias, out, rows, half = matrix
    m = n + half
    last = min(m, rows - 1)
    t = 0
    while tokens - t >= FEWEST:
        y = dots_of_four(weight, n * size, weight, last * size, x, t, tokens, size)
        z = second_row(y)
        if bias.size:
            y, z = y + splat(bias[n]), z + splat(bias[last])
        put_four(out, places_of(t, tokens, rows, n), y)
        put_four(out, places_of(t, tokens, rows, last), z)
        t += TOKENS
    while t < tokens:
        y, z = dots(weight, n * size, weight, last * size, x, t * size, size)
        put(out, t * rows + n, y + bias[n] if bias.size else y)
        if m < rows:
            put(out, t * rows + m, z + bias[m] if bias.size else z)
        t += 1


@njit(_nrt=False, forceinline=True)
def gated_rows(n, x, gate, up, _, sizes):
    """Compute rows 2n and 2n + 1 of gate.out, if there are both: with eight tokens they fill the
    lanes that silu is computed in."""
    tokens, size = sizes
    rows, end, t = gate.rows, min(2 * n + 2, gate.rows), 0
    while tokens - t >= FEWEST:
        groups = 2 if tokens - t - TOKENS >= FEWEST else 1
        g = splat(np.float32(0))
        u = g
        for m in range(2 * n, end):
            for s in range(t, t + groups * TOKENS, TOKENS):
                y = dots_of_four(gate.weight, m * size, up.weight, m * size, x, s, tokens, size)
                g, u = pushed(g, y), pushed(u, second_row(y))
        g = silu_lanes(g, u)
        for m in range(end - 1, 2 * n - 1, -1):
            for s in range(t + (groups - 1) * TOKENS, t - 1, -TOKENS):
                g = pulled(g)
                put_four(gate.out, places_of(s, tokens, rows, m), g)
        t += groups * TOKENS
    while t < tokens:
        for m in range(2 * n, end):
            y, z = dots(gate.weight, m * size, up.weight, m * size, x, t * size, size)
            put(gate.out, t * rows + m, gated_one(y, z))
        t += 1


_products, _gated = shared_rows(two_rows), shared(gated_rows)


@njit
def products(how, x, first, second, third, sizes):
    """Compute out[t,n] = x[t] · weight[n] + bias[n], of one to three matrices. `sizes` are T and
    K."""
    _products(how, x, first, second, third, sizes)


@njit
def gated_product(how, x, gate, up, sizes):
    """Compute gate.out[t,n] = silu(x[t] · gate[n]) * (x[t] · up[n])."""
    _gated(how, x, gate, up, up, sizes)


@njit
def normed_gated_product(how, a, b, norm, added, h, eps, gate, up, sizes):
    """Compute `gated_product` with x = h = norm(a + b) in float32, added = a + b."""
    tokens, size = sizes
    add_norm_wide(a, b, norm, added, h, tokens, size, eps)
    _gated(how, h, gate, up, up, sizes)
