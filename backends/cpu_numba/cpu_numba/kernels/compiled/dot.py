"""Dot products of rows of a weight matrix, widened in registers."""

import math

import numpy as np
from numba import njit, prange

from cpu_numba.kernels.compiled.lanes import ahead, fma, load, load_some, splat, total


@njit
def dot(a, start, x, first, size):
    """sum(a[start + i] * x[first + i]) for i < size."""
    p = splat(np.float32(0))
    q, r, s = p, p, p  # four sums hide the latency of an addition
    whole = size // 64 * 64
    for i in range(0, whole, 64):
        ahead(a, start + i)
        p = fma(load(a, start + i), load(x, first + i), p)
        q = fma(load(a, start + i + 16), load(x, first + i + 16), q)
        r = fma(load(a, start + i + 32), load(x, first + i + 32), r)
        s = fma(load(a, start + i + 48), load(x, first + i + 48), s)
    i = whole
    while i + 16 <= size:
        p = fma(load(a, start + i), load(x, first + i), p)
        i += 16
    if i < size:
        q = fma(load_some(a, start + i, size - i), load_some(x, first + i, size - i), q)
    return total((p + q) + (r + s))


@njit
def product_row(x, weight, bias, out, tokens, rows, size, n):
    """out[:, n]. The row stays in the first cache for all tokens."""
    for t in range(tokens):
        y = dot(weight, n * size, x, t * size, size)
        out[t * rows + n] = y + bias[n] if bias.size else y


@njit(parallel=True, cache=True)
def product(x, weight, bias, out, tokens, rows, size, alone):
    """out[t,n] = x[t] · weight[n] + bias[n]; on one thread if `alone`."""
    if alone:
        for n in range(rows):
            product_row(x, weight, bias, out, tokens, rows, size, n)
    else:
        for n in prange(rows):
            product_row(x, weight, bias, out, tokens, rows, size, n)


@njit
def silu(x):
    return x / (np.float32(1) + math.exp(-x))


@njit
def gated_row(x, gate, up, out, tokens, rows, size, n):
    for t in range(tokens):
        g = dot(gate, n * size, x, t * size, size)
        out[t * rows + n] = silu(g) * dot(up, n * size, x, t * size, size)


@njit(parallel=True, cache=True)
def gated_product(x, gate, up, out, tokens, rows, size, alone):
    """out[t,n] = silu(x[t] · gate[n]) * (x[t] · up[n]); on one thread if `alone`."""
    if alone:
        for n in range(rows):
            gated_row(x, gate, up, out, tokens, rows, size, n)
    else:
        for n in prange(rows):
            gated_row(x, gate, up, out, tokens, rows, size, n)
