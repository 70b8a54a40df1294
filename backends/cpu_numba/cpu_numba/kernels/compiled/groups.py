"""Dot products of rows of integer codes with a scale, and perhaps a zero, for each group.

w = scale * (code - zero), so a group's part of a row is scale * (codes · x - zero * sum(x)): the
sums of x are made once a call.
"""

from typing import Any, NamedTuple

import numpy as np

from cpu_numba.kernels.compiled.jit import njit
from cpu_numba.kernels.compiled.nibbles import high, high_some, low, low_some
from cpu_numba.kernels.compiled.rows import convert_row
from cpu_numba.kernels.compiled.simd import fma, get, load, load_some, put, splat, total
from cpu_numba.kernels.compiled.work_queue import shared_rows


class Matrix(NamedTuple):
    """Holds what a product takes beside x: codes [N,K] or [N,K/2], scales [N,G], zeros [N,G] or
    empty, bias [N] or empty, out [T,N], N, and how many pieces of work it is."""

    codes: Any
    scales: Any
    zeros: Any
    bias: Any
    out: Any
    rows: int
    pieces: int


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
    """Set halves[t] = x[t] at even places, then a sixteenth of it at odd ones: as nibbles
    unpack."""
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
    """Return lanes whose total is the product of 16 bytes of codes with x."""
    return fma(high(codes, start), load(halves, odd), low(codes, start) * load(halves, even))


@njit(_nrt=False)
def dot4(codes, start, scales, place, halves, even, odd, size, group):
    """Return what dot8 does, over `size` bytes of two codes, `group` bytes a group; `even` and
    `odd` are where the two halves of x begin."""
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


@njit(_nrt=False, forceinline=True)
def settle(y, scales, zeros, sums, groups, middle, t, n):
    """Return the product y of row n with token t, less what the zeros take off."""
    return y - offset(scales, zeros, middle, n * groups, sums, t * groups, groups) if (
        zeros.size) else y


@njit(_nrt=False, forceinline=True)
def leave(y, n, t, sums, groups, middle, matrix):
    """Set out[t,n] = y settled, plus the bias."""
    y = settle(y, matrix.scales, matrix.zeros, sums, groups, middle, t, n)
    put(matrix.out, t * matrix.rows + n, y + matrix.bias[n] if matrix.bias.size else y)


@njit(_nrt=False, forceinline=True)
def rows8(n, x, matrix, sizes):
    """Compute out[:, n] and, half the rows on, out[:, m]: see `dot`."""
    tokens, size, group = sizes
    wide, sums = x
    groups, m = -(-size // group), n + matrix.pieces
    last = min(m, matrix.rows - 1)
    for t in range(tokens):
        y, z = dots8(matrix.codes, n * size, last * size, matrix.scales, n * groups, last * groups,
                     wide, t * size, size, group)
        leave(y, n, t, sums, groups, np.float32(0), matrix)
        if m < matrix.rows:
            leave(z, m, t, sums, groups, np.float32(0), matrix)


@njit(_nrt=False, forceinline=True)
def row4(n, x, matrix, sizes):
    """Compute out[:, n]."""
    tokens, size, group = sizes
    halves, sums = x
    groups, half = -(-size // group), (size + 1) // 2
    for t in range(tokens):
        y = dot4(matrix.codes, n * half, matrix.scales, n * groups, halves, 2 * t * half,
                 (2 * t + 1) * half, half, group // 2)
        leave(y, n, t, sums, groups, np.float32(8), matrix)


_product8, _product4 = shared_rows(rows8), shared_rows(row4)


@njit
def product8(how, x, scratch, matrix, sizes):
    """Compute out[t,n] = x[t] · w[n] + bias[n] over bytes. `scratch` is for x as float32 and for
    the sums of its groups; `sizes` are T, K and the columns of a group."""
    wide, sums = scratch
    tokens, size, group = sizes
    if matrix.zeros.size:
        group_sums(x, sums, tokens, size, group)
    convert_row(x, 0, wide, 0, tokens * size)
    _product8(how, scratch, matrix, matrix, matrix, sizes)


@njit
def product4(how, x, scratch, matrix, sizes):
    """Compute the product over nibbles, whose zero is 8 without `zeros`; `scratch` is for x by
    halves."""
    halves, sums = scratch
    tokens, size, group = sizes
    if matrix.zeros.size:
        group_sums(x, sums, tokens, size, group)
    split(x, halves, tokens, size)
    _product4(how, scratch, matrix, matrix, matrix, sizes)
