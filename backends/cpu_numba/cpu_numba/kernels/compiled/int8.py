"""Dot products of rows of bytes in integers (see `integers`), for a few tokens.

w = scale * (code - zero), and x is about its own group's scale times an integer, so a group's part
of a row is scale * x's scale * sum(code * integer); `groups.leave` takes off what the zeros do.
"""

import numpy as np
from numba import njit, prange

from cpu_numba.kernels.compiled.groups import group_sums, leave
from cpu_numba.kernels.compiled.integers import bytes_times, floats, nothing
from cpu_numba.kernels.compiled.lanes import ahead, fma, splat, total
from cpu_numba.kernels.compiled.rounding import FINER, GROUPS, round_row
from cpu_numba.kernels.compiled.share import claim


def _make(group):
    """dots(...) for that size of groups: a loop whose length is known when it is compiled."""
    @njit(_nrt=False)
    def dots(first, second, x_scales, t, codes, scales, n, m, size):
        """The products of token t with rows n and m."""
        p = splat(np.float32(0))
        q, rest = p, splat(np.float32(1) / FINER)
        for begin in range(0, size, group):
            a, b, c, d = nothing(), nothing(), nothing(), nothing()
            i, j, at = n * size + begin, m * size + begin, t * size + begin
            ahead(codes, i, group, 1024)
            ahead(codes, j, group, 1024)
            for k in range(0, group, 32):
                a = bytes_times(codes, i + k, first, at + k, a)
                b = bytes_times(codes, j + k, first, at + k, b)
                if second is not None:
                    c = bytes_times(codes, i + k, second, at + k, c)
                    d = bytes_times(codes, j + k, second, at + k, d)
            y, z, scale = floats(a), floats(b), x_scales[at // group]
            if second is not None:
                y, z = fma(floats(c), rest, y), fma(floats(d), rest, z)
            p = fma(y, splat(scales[i // group] * scale), p)
            q = fma(z, splat(scales[j // group] * scale), q)
        return total(p), total(q)
    return dots


by_32, by_64, by_128 = (_make(group) for group in GROUPS)


@njit(_nrt=False)
def two_rows(first, second, x_scales, codes, scales, zeros, bias, out, sums, tokens, rows, size,
             group, groups, n):
    """out[:, n] and, half the rows on, out[:, m]: see `dot`."""
    m, last = n + (rows + 1) // 2, min(n + (rows + 1) // 2, rows - 1)
    for t in range(tokens):
        if group == 32:
            y, z = by_32(first, second, x_scales, t, codes, scales, n, last, size)
        elif group == 64:
            y, z = by_64(first, second, x_scales, t, codes, scales, n, last, size)
        else:
            y, z = by_128(first, second, x_scales, t, codes, scales, n, last, size)
        leave(y, scales, zeros, bias, out, sums, rows, groups, np.float32(0), t, n)
        if m < rows:
            leave(z, scales, zeros, bias, out, sums, rows, groups, np.float32(0), t, m)


@njit(_nrt=False)
def share(x, codes, scales, zeros, bias, out, sums, tokens, rows, size, group, counter, piece):
    first, second, x_scales = x
    groups, half, n = -(-size // group), (rows + 1) // 2, claim(counter, piece)
    while n < half:
        for i in range(n, min(half, n + piece)):
            two_rows(first, second, x_scales, codes, scales, zeros, bias, out, sums, tokens, rows,
                     size, group, groups, i)
        n = claim(counter, piece)


@njit(parallel=True, cache=True)
def product(x, codes, scales, zeros, bias, out, sums, rounded, tokens, rows, size, group, threads,
            counter, piece):
    """out[t,n] = x[t] · w[n] + bias[n], shared by `threads`; `rounded` is scratch for x."""
    counter[0] = 0
    if zeros.size:
        group_sums(x, sums, tokens, size, group)
    for t in range(tokens):
        round_row(x, t, size, group, rounded)
    if threads == 1:
        share(rounded, codes, scales, zeros, bias, out, sums, tokens, rows, size, group, counter,
              piece)
    else:
        for _ in prange(threads):
            share(rounded, codes, scales, zeros, bias, out, sums, tokens, rows, size, group,
                  counter, piece)
