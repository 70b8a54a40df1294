"""Dot products of rows of weight matrices, widened in registers.

Two rows that lie far apart are read at once: from two places memory gave a sixth more than from
one, prefetched or not (medians of 32.0 and 27.5 GB/s on two cores of Zen 4).
"""

import math

import numpy as np
from numba import njit, prange

from cpu_numba.kernels.compiled.lanes import ahead, fma, load_some, put, splat, times, total
from cpu_numba.kernels.compiled.share import claim


@njit(_nrt=False)
def dots(a, i, b, j, x, first, size):
    """The products of `size` elements of x with those of a from i on, and of b from j on."""
    p = splat(np.float32(0))
    q, r, s = p, p, p  # four sums hide the latency of an addition
    whole = size // 64 * 64
    for k in range(0, whole, 64):
        ahead(a, i + k, 64, 1024)
        ahead(b, j + k, 64, 1024)
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


@njit(_nrt=False)
def product_rows(x, weight, bias, out, tokens, rows, size, n):
    """out[:, n] and, half the rows on, out[:, m]. They stay in the first cache for all tokens."""
    m = n + (rows + 1) // 2
    for t in range(tokens):
        y, z = dots(weight, n * size, weight, min(m, rows - 1) * size, x, t * size, size)
        put(out, t * rows + n, y + bias[n] if bias.size else y)
        if m < rows:
            put(out, t * rows + m, z + bias[m] if bias.size else z)


@njit(_nrt=False)
def product_share(x, weight, bias, out, tokens, rows, size, counter, piece):
    half, n = (rows + 1) // 2, claim(counter, piece)
    while n < half:
        for i in range(n, min(half, n + piece)):
            product_rows(x, weight, bias, out, tokens, rows, size, i)
        n = claim(counter, piece)


@njit(parallel=True, cache=True)
def product(x, weight, bias, out, tokens, rows, size, threads, counter, piece):
    """out[t,n] = x[t] · weight[n] + bias[n], shared by `threads`."""
    counter[0] = 0
    if threads == 1:
        product_share(x, weight, bias, out, tokens, rows, size, counter, piece)
    else:
        for _ in prange(threads):
            product_share(x, weight, bias, out, tokens, rows, size, counter, piece)


@njit(_nrt=False)
def silu(x):
    return x / (np.float32(1) + math.exp(-x))


@njit(_nrt=False)
def gated_row(x, gate, up, out, tokens, rows, size, n):
    for t in range(tokens):
        g, u = dots(gate, n * size, up, n * size, x, t * size, size)
        put(out, t * rows + n, silu(g) * u)


@njit(_nrt=False)
def gated_share(x, gate, up, out, tokens, rows, size, counter, piece):
    n = claim(counter, piece)
    while n < rows:
        for i in range(n, min(rows, n + piece)):
            gated_row(x, gate, up, out, tokens, rows, size, i)
        n = claim(counter, piece)


@njit(parallel=True, cache=True)
def gated_product(x, gate, up, out, tokens, rows, size, threads, counter, piece):
    """out[t,n] = silu(x[t] · gate[n]) * (x[t] · up[n]), shared by `threads`."""
    counter[0] = 0
    if threads == 1:
        gated_share(x, gate, up, out, tokens, rows, size, counter, piece)
    else:
        for _ in prange(threads):
            gated_share(x, gate, up, out, tokens, rows, size, counter, piece)
