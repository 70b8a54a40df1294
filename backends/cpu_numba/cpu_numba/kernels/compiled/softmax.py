"""Computes softmax by rows, and its parts, which attention uses."""

import numpy as np

from cpu_numba.kernels.compiled.exponential import exp
from cpu_numba.kernels.compiled.jit import njit
from cpu_numba.kernels.compiled.simd import (
    fma,
    larger,
    largest,
    load,
    load_some,
    only,
    splat,
    store,
    store_some,
    total,
)


@njit(_nrt=False)
def softmax_row(x, out, start, size, scale):
    """Compute out = exp(scale * x - m) over x[start:], m the largest scale * x. Returns (m, the
    sum)."""
    whole, end = start + size // 16 * 16, start + size
    rest = end - whole
    nothing, zero = splat(np.float32(-np.inf)), splat(np.float32(0))
    top, factor, sums = nothing, splat(scale), zero
    for i in range(start, whole, 16):
        top = larger(top, load(x, i))
    if rest:
        top = larger(top, only(load_some(x, whole, rest), rest, nothing))
    peak = largest(top) * scale
    top = splat(-peak)
    for i in range(start, whole, 16):
        e = exp(fma(load(x, i), factor, top))
        store(out, i, e)
        sums = sums + e
    if rest:
        e = exp(fma(load_some(x, whole, rest), factor, top))
        store_some(out, whole, e, rest)
        sums = sums + only(e, rest, zero)
    return peak, total(sums)


@njit(_nrt=False)
def scale_row(x, start, size, factor):
    whole = start + size // 16 * 16
    for i in range(start, whole, 16):
        store(x, i, load(x, i) * splat(factor))
    for i in range(whole, start + size):
        x[i] *= factor


@njit
def softmax(x, out, rows, size):
    for t in range(rows):
        _, s = softmax_row(x, out, t * size, size, np.float32(1))
        scale_row(out, t * size, size, np.float32(1) / s)
