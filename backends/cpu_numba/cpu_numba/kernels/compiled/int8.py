"""Dot products of rows of bytes in integers (see `integers`), for a few tokens.

w = scale * (code - zero), and x is about its own group's scale times an integer, so a group's part
of a row is scale * x's scale * sum(code * integer); `groups.leave` takes off what the zeros do.
"""

import numpy as np

from cpu_numba.kernels.compiled.activations import gated_one
from cpu_numba.kernels.compiled.groups import group_sums, leave, settle
from cpu_numba.kernels.compiled.integers import bytes_times, floats, nothing
from cpu_numba.kernels.compiled.jit import njit
from cpu_numba.kernels.compiled.naming import named
from cpu_numba.kernels.compiled.rounding import FINER, GROUPS, round_row
from cpu_numba.kernels.compiled.rows import add_norm_wide
from cpu_numba.kernels.compiled.simd import fma, prefetch, put, splat, total
from cpu_numba.kernels.compiled.work_queue import shared, shared_rows


def _make(group):
    """Make dots(...) for that size of groups: a loop whose length is known when it is compiled."""
    @njit(_nrt=False, forceinline=True)
    @named("dots", group)
    def dots(first, second, x_scales, t, codes, scales, n, others, other_scales, m, size):
        """Return the products of token t with row n of `codes` and row m of `others`."""
        p = splat(np.float32(0))
        q, rest = p, splat(np.float32(1) / FINER)
        for begin in range(0, size, group):
            a, b, c, d = nothing(), nothing(), nothing(), nothing()
            i, j, at = n * size + begin, m * size + begin, t * size + begin
            prefetch(codes, i, group, 1024)
            prefetch(others, j, group, 1024)
            for k in range(0, group, 32):
                a = bytes_times(codes, i + k, first, at + k, a)
                b = bytes_times(others, j + k, first, at + k, b)
                if second is not None:
                    c = bytes_times(codes, i + k, second, at + k, c)
                    d = bytes_times(others, j + k, second, at + k, d)
            y, z, scale = floats(a), floats(b), x_scales[at // group]
            if second is not None:
                y, z = fma(floats(c), rest, y), fma(floats(d), rest, z)
            p = fma(y, splat(scales[i // group] * scale), p)
            q = fma(z, splat(other_scales[j // group] * scale), q)
        return total(p), total(q)
    return dots


by_32, by_64, by_128 = (_make(group) for group in GROUPS)


@njit(_nrt=False, forceinline=True)
def dots(x, t, codes, scales, n, others, other_scales, m, size, group):
    first, second, x_scales, _ = x  # as arguments: only of them Numba knows that one is None
    if group == 32:
        return by_32(first, second, x_scales, t, codes, scales, n, others, other_scales, m, size)
    if group == 64:
        return by_64(first, second, x_scales, t, codes, scales, n, others, other_scales, m, size)
    return by_128(first, second, x_scales, t, codes, scales, n, others, other_scales, m, size)


@njit(_nrt=False, forceinline=True)
def two_rows(n, x, matrix, sizes):
    """Compute out[:, n] and, half the rows on, out[:, m]: see `dot`."""
    tokens, size, group = sizes
    groups, m = -(-size // group), n + matrix.pieces
    last = min(m, matrix.rows - 1)
    for t in range(tokens):
        y, z = dots(x, t, matrix.codes, matrix.scales, n, matrix.codes, matrix.scales, last, size,
                    group)
        leave(y, n, t, x.sums, groups, np.float32(0), matrix)
        if m < matrix.rows:
            leave(z, m, t, x.sums, groups, np.float32(0), matrix)


@njit(_nrt=False, forceinline=True)
def gated_row(n, x, gate, up, _, sizes):
    tokens, size, group = sizes
    groups = -(-size // group)
    for t in range(tokens):
        g, u = dots(x, t, gate.codes, gate.scales, n, up.codes, up.scales, n, size, group)
        g = settle(g, gate.scales, gate.zeros, x.sums, groups, np.float32(0), t, n)
        u = settle(u, up.scales, up.zeros, x.sums, groups, np.float32(0), t, n)
        put(gate.out, t * gate.rows + n, gated_one(g, u))


_products, _gated = shared_rows(two_rows), shared(gated_row)


@njit(_nrt=False)
def prepare(x, scratch, zeros, tokens, size, group):
    """Return x in integers and, if there are zeros, the sums of its groups."""
    if zeros:
        group_sums(x, scratch.sums, tokens, size, group)
    for t in range(tokens):
        round_row(x, t, size, group, scratch)


@njit
def products(how, x, scratch, first, second, third, sizes):
    """Compute out[t,n] = x[t] · w[n] + bias[n], of one to three matrices. `scratch` is for x,
    `sizes` are T, K and the columns of a group."""
    prepare(x, scratch, first.zeros.size + second.zeros.size + third.zeros.size, *sizes)
    _products(how, scratch, first, second, third, sizes)


@njit
def normed_gated_product(how, a, b, norm, added, h, eps, scratch, gate, up, sizes):
    """Compute gate.out[t,n] = silu(h[t] · gate[n]) * (h[t] · up[n]), h = norm(a + b), added = a +
    b."""
    tokens, size, group = sizes
    add_norm_wide(a, b, norm, added, h, tokens, size, eps)
    prepare(h, scratch, gate.zeros.size + up.zeros.size, tokens, size, group)
    _gated(how, scratch, gate, up, up, sizes)
