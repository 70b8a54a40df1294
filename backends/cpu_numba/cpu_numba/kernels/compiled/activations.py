"""Computes swiglu: serially over few elements, where waking threads would cost more than the work,
and on all threads over many."""

import numpy as np

from cpu_numba.kernels.compiled.exponential import exp
from cpu_numba.kernels.compiled.jit import njit
from cpu_numba.kernels.compiled.simd import first, load, load_some, splat, store, store_some
from cpu_numba.kernels.compiled.spread import on_threads


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
