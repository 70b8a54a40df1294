"""rope and swiglu: run serially over few elements, where waking threads would cost more than the
work, and on all threads over many."""

import math

import numpy as np

from cpu_numba.kernels.compiled.exponential import exp
from cpu_numba.kernels.compiled.jit import njit
from cpu_numba.kernels.compiled.simd import (
    first,
    get,
    load,
    load_some,
    put,
    splat,
    store,
    store_some,
)
from cpu_numba.kernels.compiled.spread import on_threads


@njit(_nrt=False)
def rotate_token(t, x, positions, frequencies, out, heads, half, interleaved):
    start, (apart, step) = 2 * t * heads * half, (1, 2) if interleaved else (half, 1)
    for i in range(half):
        angle = np.float32(positions[t]) * frequencies[i]
        c, s = math.cos(angle), math.sin(angle)
        for h in range(heads):
            at = start + 2 * h * half + step * i
            a, b = get(x, at), get(x, at + apart)
            put(out, at, a * c - b * s)
            put(out, at + apart, b * c + a * s)


@njit
def rotate(x, positions, frequencies, out, tokens, heads, half, interleaved):
    """Rotate the pairs of each head by position * frequency, the angle rounded to float32."""
    for t in range(tokens):
        rotate_token(t, x, positions, frequencies, out, heads, half, interleaved)


@njit
def rotate_many(x, positions, frequencies, out, tokens, heads, half, interleaved):
    on_threads(rotate_token, tokens, False, (x, positions, frequencies, out, heads, half,
                                             interleaved))


@njit(_nrt=False)
def silu_lanes(gate, up):
    one = splat(np.float32(1))
    return gate / (one + exp(splat(np.float32(0)) - gate)) * up


@njit(_nrt=False)
def gated_one(gate, up):
    """Return silu(gate) * up of two numbers; math.exp would be a call."""
    return first(silu_lanes(splat(gate), splat(up)))


@njit(_nrt=False)
def gated(gate, up, out, start, size):
    whole = start + size // 16 * 16
    for i in range(start, whole, 16):
        store(out, i, silu_lanes(load(gate, i), load(up, i)))
    rest = start + size - whole
    if rest:
        v = silu_lanes(load_some(gate, whole, rest), load_some(up, whole, rest))
        store_some(out, whole, v, rest)


@njit
def swiglu(gate, up, out, size):
    """Compute out = silu(gate) * up."""
    gated(gate, up, out, 0, size)


@njit(_nrt=False)
def gated_token(t, gate, up, out, size):
    gated(gate, up, out, t * size, size)


@njit
def swiglu_many(gate, up, out, rows, size):
    on_threads(gated_token, rows, False, (gate, up, out, size))
