"""Dot products of rows of integer codes with a scale, and perhaps a zero, for each group.

w = scale * (code - zero), so a group's part of a row is scale * (codes · x - zero * sum(x)): the
sums of x are made once a call.
"""

import numpy as np
from numba import njit, prange

from cpu_numba.kernels.compiled.lanes import ahead, fma, load, load_some, splat, total
from cpu_numba.kernels.compiled.nibbles import high, high_some, low, low_some


@njit
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


@njit
def dot8(codes, start, scales, place, x, first, size, group):
    """sum(scale * code * x) over a row of bytes; a group's scale multiplies its sum of lanes."""
    row = splat(np.float32(0))
    for begin in range(0, size, group):
        end = min(size, begin + group)
        p = splat(np.float32(0))
        q, r, s = p, p, p
        i = begin
        while i + 64 <= end:
            ahead(codes, start + i)
            p = fma(load(codes, start + i), load(x, first + i), p)
            q = fma(load(codes, start + i + 16), load(x, first + i + 16), q)
            r = fma(load(codes, start + i + 32), load(x, first + i + 32), r)
            s = fma(load(codes, start + i + 48), load(x, first + i + 48), s)
            i += 64
        while i + 16 <= end:
            p = fma(load(codes, start + i), load(x, first + i), p)
            i += 16
        if i < end:
            q = fma(load_some(codes, start + i, end - i), load_some(x, first + i, end - i), q)
        row = fma((p + q) + (r + s), splat(scales[place]), row)
        place += 1
    return total(row)


@njit
def split(x, halves, tokens, size):
    """halves[t] = x[t] at even places, then a sixteenth of it at odd ones: as nibbles unpack."""
    half = (size + 1) // 2
    for t in range(tokens):
        for i in range(size // 2):
            halves[2 * t * half + i] = x[t * size + 2 * i]
            halves[(2 * t + 1) * half + i] = x[t * size + 2 * i + 1] * np.float32(1 / 16)
        if size % 2:
            halves[2 * t * half + half - 1] = x[t * size + size - 1]
            halves[(2 * t + 1) * half + half - 1] = np.float32(0)


@njit
def dot4(codes, start, scales, place, halves, even, odd, size, group):
    """As dot8 over `size` bytes of two codes, `group` bytes a group; `even` and `odd` are where the
    two halves of x begin."""
    row = splat(np.float32(0))
    for begin in range(0, size, group):
        end = min(size, begin + group)
        p = splat(np.float32(0))
        q, r, s = p, p, p
        i = begin
        while i + 32 <= end:
            ahead(codes, start + i)
            p = fma(low(codes, start + i), load(halves, even + i), p)
            q = fma(high(codes, start + i), load(halves, odd + i), q)
            r = fma(low(codes, start + i + 16), load(halves, even + i + 16), r)
            s = fma(high(codes, start + i + 16), load(halves, odd + i + 16), s)
            i += 32
        while i < end:
            n = min(16, end - i)
            p = fma(low_some(codes, start + i, n), load_some(halves, even + i, n), p)
            q = fma(high_some(codes, start + i, n), load_some(halves, odd + i, n), q)
            i += 16
        row = fma((p + q) + (r + s), splat(scales[place]), row)
        place += 1
    return total(row)


@njit
def offset(scales, zeros, middle, place, sums, first, groups):
    """sum(scale * (zero - middle) * sum of x) over a row's groups."""
    row = splat(np.float32(0))
    for g in range(0, groups, 16):
        n = min(16, groups - g)
        part = load_some(scales, place + g, n) * load_some(sums, first + g, n)
        row = fma(part, load_some(zeros, place + g, n) - splat(middle), row)
    return total(row)


@njit
def row8(x, codes, scales, zeros, bias, out, sums, tokens, rows, size, group, n):
    """out[:, n]."""
    groups = -(-size // group)
    for t in range(tokens):
        y = dot8(codes, n * size, scales, n * groups, x, t * size, size, group)
        if zeros.size:
            y -= offset(scales, zeros, np.float32(0), n * groups, sums, t * groups, groups)
        out[t * rows + n] = y + bias[n] if bias.size else y


@njit(parallel=True, cache=True)
def product8(x, codes, scales, zeros, bias, out, sums, tokens, rows, size, group, alone):
    """out[t,n] = x[t] · w[n] + bias[n] over bytes; on one thread if `alone`."""
    if zeros.size:
        group_sums(x, sums, tokens, size, group)
    if alone:
        for n in range(rows):
            row8(x, codes, scales, zeros, bias, out, sums, tokens, rows, size, group, n)
    else:
        for n in prange(rows):
            row8(x, codes, scales, zeros, bias, out, sums, tokens, rows, size, group, n)


@njit
def row4(halves, codes, scales, zeros, bias, out, sums, tokens, rows, size, group, n):
    """out[:, n]."""
    groups, half = -(-size // group), (size + 1) // 2
    for t in range(tokens):
        y = dot4(codes, n * half, scales, n * groups, halves, 2 * t * half, (2 * t + 1) * half,
                 half, group // 2)
        if zeros.size:
            y -= offset(scales, zeros, np.float32(8), n * groups, sums, t * groups, groups)
        out[t * rows + n] = y + bias[n] if bias.size else y


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
