"""Dot products of rows of integer codes with a scale, and perhaps a zero, for each group.

w = scale * (code - zero), so a group's part of a row is scale * (codes · x - zero * sum(x)): the
sums of x are made once a call.
"""

import numpy as np
from numba import njit, prange

from cpu_numba.kernels.compiled.lanes import fma, get, load, load_some, put, splat, total
from cpu_numba.kernels.compiled.nibbles import high, high_some, low, low_some
from cpu_numba.kernels.compiled.rows import convert_row
from cpu_numba.kernels.compiled.share import claim


@njit(_nrt=False)
def group_sums(x, sums, tokens, size, group):
    """sums[t,g] = the sum of group g of x[t]."""
    groups = -(-size // group)
    for t in range(tokens):
        for g in range(groups):
            s = splat(np.float32(0))
            first, last = t * size + g * group, t * size + min(size, (g + 1) * group)
            while first + 16 <= last:
                s = s + load(x, first)
                first += 16
            if first < last:
                s = s + load_some(x, first, last - first)
            sums[t * groups + g] = total(s)


@njit(_nrt=False)
def dots8(codes, i, j, scales, place, other, x, first, size, group):
    """sum(scale * code * x) over two rows of bytes, which begin at i and j and their scales at
    `place` and `other`; a group's scale multiplies its sum of lanes."""
    p = splat(np.float32(0))
    q = p
    for begin in range(0, size, group):
        end = min(size, begin + group)
        a = splat(np.float32(0))
        b, k = a, begin
        while k + 32 <= end:
            value, more = load(x, first + k), load(x, first + k + 16)
            a = fma(load(codes, i + k), value, a)
            b = fma(load(codes, j + k), value, b)
            a = fma(load(codes, i + k + 16), more, a)
            b = fma(load(codes, j + k + 16), more, b)
            k += 32
        while k < end:
            some = min(16, end - k)
            value = load_some(x, first + k, some)
            a = fma(load_some(codes, i + k, some), value, a)
            b = fma(load_some(codes, j + k, some), value, b)
            k += 16
        p, q = fma(a, splat(scales[place]), p), fma(b, splat(scales[other]), q)
        place, other = place + 1, other + 1
    return total(p), total(q)


@njit(_nrt=False)
def split(x, halves, tokens, size):
    """halves[t] = x[t] at even places, then a sixteenth of it at odd ones: as nibbles unpack."""
    half = (size + 1) // 2
    for t in range(tokens):
        for i in range(size // 2):
            halves[2 * t * half + i] = get(x, t * size + 2 * i)
            halves[(2 * t + 1) * half + i] = get(x, t * size + 2 * i + 1) * np.float32(1 / 16)
        if size % 2:
            halves[2 * t * half + half - 1] = get(x, t * size + size - 1)
            halves[(2 * t + 1) * half + half - 1] = np.float32(0)


@njit(_nrt=False)
def piece4(codes, start, halves, even, odd):
    """Lanes whose total is the product of 16 bytes of codes with x."""
    return fma(high(codes, start), load(halves, odd), low(codes, start) * load(halves, even))


@njit(_nrt=False)
def dot4(codes, start, scales, place, halves, even, odd, size, group):
    """As dot8 over `size` bytes of two codes, `group` bytes a group; `even` and `odd` are where the
    two halves of x begin."""
    row = splat(np.float32(0))
    for begin in range(0, size, group):
        end = min(size, begin + group)
        p = splat(np.float32(0))
        i = begin
        while i + 16 <= end:
            p = p + piece4(codes, start + i, halves, even + i, odd + i)
            i += 16
        if i < end:
            p = fma(low_some(codes, start + i, end - i), load_some(halves, even + i, end - i), p)
            p = fma(high_some(codes, start + i, end - i), load_some(halves, odd + i, end - i), p)
        row = fma(p, splat(scales[place]), row)
        place += 1
    return total(row)


@njit(_nrt=False)
def offset(scales, zeros, middle, place, sums, first, groups):
    """sum(scale * (zero - middle) * sum of x) over a row's groups."""
    row = splat(np.float32(0))
    for g in range(0, groups, 16):
        n = min(16, groups - g)
        part = load_some(scales, place + g, n) * load_some(sums, first + g, n)
        row = fma(part, load_some(zeros, place + g, n) - splat(middle), row)
    return total(row)


@njit(_nrt=False)
def rows8(x, codes, scales, zeros, bias, out, sums, tokens, rows, size, group, n):
    """out[:, n] and, half the rows on, out[:, m]: see `dot`."""
    groups, m = -(-size // group), n + (rows + 1) // 2
    last = min(m, rows - 1)
    for t in range(tokens):
        y, z = dots8(codes, n * size, last * size, scales, n * groups, last * groups, x, t * size,
                     size, group)
        leave(y, scales, zeros, bias, out, sums, rows, groups, np.float32(0), t, n)
        if m < rows:
            leave(z, scales, zeros, bias, out, sums, rows, groups, np.float32(0), t, m)


@njit(_nrt=False)
def leave(y, scales, zeros, bias, out, sums, rows, groups, middle, t, n):
    """out[t, n] = y, less what the zeros take off, plus the bias."""
    if zeros.size:
        y -= offset(scales, zeros, middle, n * groups, sums, t * groups, groups)
    put(out, t * rows + n, y + bias[n] if bias.size else y)


@njit(_nrt=False)
def share8(x, codes, scales, zeros, bias, out, sums, tokens, rows, size, group, counter, piece):
    half, n = (rows + 1) // 2, claim(counter, piece)
    while n < half:
        for i in range(n, min(half, n + piece)):
            rows8(x, codes, scales, zeros, bias, out, sums, tokens, rows, size, group, i)
        n = claim(counter, piece)


@njit(parallel=True, cache=True)
def product8(x, codes, scales, zeros, bias, out, sums, wide, tokens, rows, size, group, threads,
             counter, piece):
    """out[t,n] = x[t] · w[n] + bias[n] over bytes, shared by `threads`. `wide` is scratch for x as
    float32."""
    counter[0] = 0
    if zeros.size:
        group_sums(x, sums, tokens, size, group)
    convert_row(x, 0, wide, 0, tokens * size)
    if threads == 1:
        share8(wide, codes, scales, zeros, bias, out, sums, tokens, rows, size, group, counter,
               piece)
    else:
        for _ in prange(threads):
            share8(wide, codes, scales, zeros, bias, out, sums, tokens, rows, size, group, counter,
                   piece)


@njit(_nrt=False)
def row4(halves, codes, scales, zeros, bias, out, sums, tokens, rows, size, group, n):
    """out[:, n]."""
    groups, half = -(-size // group), (size + 1) // 2
    for t in range(tokens):
        y = dot4(codes, n * half, scales, n * groups, halves, 2 * t * half, (2 * t + 1) * half,
                 half, group // 2)
        leave(y, scales, zeros, bias, out, sums, rows, groups, np.float32(8), t, n)


@njit(parallel=True, cache=True)
def product4(x, codes, scales, zeros, bias, out, sums, halves, tokens, rows, size, group, alone):
    """The same over nibbles, whose zero is 8 without `zeros`."""
    if zeros.size:
        group_sums(x, sums, tokens, size, group)
    split(x, halves, tokens, size)
    if alone:
        for n in range(rows):
            row4(halves, codes, scales, zeros, bias, out, sums, tokens, rows, size, group, n)
    else:
        for n in prange(rows):
            row4(halves, codes, scales, zeros, bias, out, sums, tokens, rows, size, group, n)
