"""Computes softmax by rows, and its parts, which attention uses."""

import math

import numpy as np

from cpu_numba.kernels.compiled.exponential import exp
from cpu_numba.kernels.compiled.jit import njit
from cpu_numba.kernels.compiled.simd import fma, larger, largest, load, splat, store, total


@njit(_nrt=False)
def softmax_row(x, out, start, size, scale):
    """Compute out = exp(scale * x - m) over x[start:], m the largest scale * x. Returns (m, the
    sum)."""
    peak = np.float32(-np.inf)
    whole = start + size // 16 * 16
    end = start + size
    if whole > start:
        top = load(x, start)
        for i in range(start + 16, whole, 16):
            top = larger(top, load(x, i))
        peak = largest(top)
    for i in range(whole, end):
        peak = max(peak, x[i])
    peak *= scale
    top, factor = splat(-peak), splat(scale)
    sums = splat(np.float32(0))
    for i in range(start, whole, 16):
        e = exp(fma(load(x, i), factor, top))
        store(out, i, e)
        sums = sums + e
    last = np.float32(0)
    for i in range(whole, end):
        e1 = math.exp(x[i] * scale - peak)
        out[i] = e1
        last += e1
    return peak, total(sums) + last


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
