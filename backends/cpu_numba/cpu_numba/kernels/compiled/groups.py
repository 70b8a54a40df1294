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
    """sum(scale * code * x) over a row of bytes; a group's scale multiplies its sum of lanes. Two
    groups at a time hide the latency of the sums."""
    row = splat(np.float32(0))
    other, done = row, 0
    if group % 32 == 0:
        for begin in range(0, size - size % (2 * group), 2 * group):
            low, high = splat(scales[place]), splat(scales[place + 1])
            for i in range(begin, begin + group, 32):
                j = i + group
                ahead(codes, start + begin + 2 * (i - begin))
                p = load(codes, start + i) * load(x, first + i)
                q = load(codes, start + j) * load(x, first + j)
                p = fma(load(codes, start + i + 16), load(x, first + i + 16), p)
                q = fma(load(codes, start + j + 16), load(x, first + j + 16), q)
                row, other = fma(p, low, row), fma(q, high, other)
            place += 2
        done = size - size % (2 * group)
    for begin in range(done, size, group):
        end = min(size, begin + group)
        p = splat(np.float32(0))
        i = begin
        while i + 16 <= end:
            p = fma(load(codes, start + i), load(x, first + i), p)
            i += 16
        if i < end:
            p = fma(load_some(codes, start + i, end - i), load_some(x, first + i, end - i), p)
        row = fma(p, splat(scales[place]), row)
        place += 1
    return total(row + other)


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
def piece4(codes, start, halves, even, odd):
    """Lanes whose total is the product of 16 bytes of codes with x."""
    return fma(high(codes, start), load(halves, odd), low(codes, start) * load(halves, even))


@njit
def dot4(codes, start, scales, place, halves, even, odd, size, group):
    """As dot8 over `size` bytes of two codes, `group` bytes a group; `even` and `odd` are where the
    two halves of x begin."""
    row = splat(np.float32(0))
    other, done = row, 0
    if group == 16:  # GGUF's
        for begin in range(0, size - size % 64, 64):
            i, e, o = start + begin, even + begin, odd + begin
            ahead(codes, i)
            row = fma(piece4(codes, i, halves, e, o), splat(scales[place]), row)
            other = fma(piece4(codes, i + 16, halves, e + 16, o + 16), splat(scales[place + 1]),
                        other)
            row = fma(piece4(codes, i + 32, halves, e + 32, o + 32), splat(scales[place + 2]), row)
            other = fma(piece4(codes, i + 48, halves, e + 48, o + 48), splat(scales[place + 3]),
                        other)
            place += 4
        done = size - size % 64
    elif group % 64 == 0:
        for begin in range(0, size - size % group, group):
            p, q = splat(np.float32(0)), splat(np.float32(0))
            for j in range(begin, begin + group, 64):
                i, e, o = start + j, even + j, odd + j
                ahead(codes, i)
                p = p + piece4(codes, i, halves, e, o)
                q = q + piece4(codes, i + 16, halves, e + 16, o + 16)
                p = p + piece4(codes, i + 32, halves, e + 32, o + 32)
                q = q + piece4(codes, i + 48, halves, e + 48, o + 48)
            row = fma(p + q, splat(scales[place]), row)
            place += 1
        done = size - size % group
    for begin in range(done, size, group):
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
    return total(row + other)


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
