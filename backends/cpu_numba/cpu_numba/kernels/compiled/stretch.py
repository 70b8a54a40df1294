"""Computes a stretch of the context for one key/value head: what attention mixes there.

Keys and values are read once for several query heads, as they come from caches further away than
the queries and the sums.
"""

import numpy as np
from numba import types
from numba.extending import intrinsic

from cpu_numba.kernels.compiled import emit
from cpu_numba.kernels.compiled.four import FAST, no_sums, one_times_eight, totals
from cpu_numba.kernels.compiled.jit import njit
from cpu_numba.kernels.compiled.simd import (
    fma,
    load,
    load_some,
    splat,
    spread,
    store,
    store_some,
    total,
)
from cpu_numba.kernels.compiled.softmax import softmax_row

STRETCH = 128  # positions


@intrinsic
def start_of(typing_context, rows, j, size):
    """Return rows[j] * size; j counts from the beginning, as no other index does in Numba."""
    def code(context, builder, signature, args):
        row = builder.load(emit.pointer(context, builder, rows, *args[:2], emit.I32))
        return builder.mul(builder.sext(row, emit.I64), args[2])
    return types.intp(rows, types.intp, types.intp), code


@njit(_nrt=False)
def find(rows, table, entry, block, kv_heads, head, first, count):
    """Set rows[j] = the row of the cache for position first + j, whose blocks are in
    table[entry:]."""
    j = 0
    while j < count:
        inside = (first + j) % block
        start = (table[entry + (first + j) // block] * block + inside - j) * kv_heads + head
        end = min(count, j + block - inside)
        for k in range(j, end):
            rows[k] = start + k * kv_heads
        j = end
    rows[count:-(-count // 8) * 8] = rows[count - 1]


@njit(_nrt=False, forceinline=True)
def eight_keys(q, first, cache, rows, j, at, count, scores, to, size):
    """Set scores[to:to + 8] = the products of a query with the keys that begin `at`: the query is
    read once, and their sums are added up in lanes."""
    sums, whole = no_sums(), size - size % 16
    for i in range(0, whole, 16):
        sums = one_times_eight(q, first + i, cache, i, at, sums, 16)
    if whole < size:
        sums = one_times_eight(q, first + whole, cache, whole, at, sums, size - whole)
    store_some(scores, to, totals(sums), 8)


@njit(_nrt=False, forceinline=True)
def each_key(q, first, cache, rows, j, at, count, scores, to, size):
    """Do the same one key after another, for `count` of the eight."""
    for k in range(count):
        sums, key = splat(np.float32(0)), start_of(rows, j + k, size)
        for i in range(0, size, 16):
            n = min(16, size - i)
            sums = fma(load_some(q, first + i, n), load_some(cache, key + i, n), sums)
        scores[to + k] = total(sums)


_keys = eight_keys if FAST else each_key


@njit(_nrt=False)
def score(q, first, group, cache, rows, count, scores, size):
    """Set scores[h * STRETCH + j] = the product of query h and the key in rows[j] of the cache,
    where the last row is there as often as makes eight whole; keys stay near for all queries."""
    for j in range(0, count, 8):
        at = (start_of(rows, j, size), start_of(rows, j + 1, size), start_of(rows, j + 2, size),
              start_of(rows, j + 3, size), start_of(rows, j + 4, size), start_of(rows, j + 5, size),
              start_of(rows, j + 6, size), start_of(rows, j + 7, size))
        for h in range(group):
            _keys(q, first + h * size, cache, rows, j, at, min(8, count - j), scores,
                  h * STRETCH + j, size)


@njit(_nrt=False)
def mix(weights, first, cache, base, rows, count, out, at, size):
    """Set out[at:at + size] = the sum of weights[first + j] * the value in rows[j] of the cache."""
    for i in range(0, size - size % 64, 64):
        p = splat(np.float32(0))
        q, r, s = p, p, p
        for j in range(count):
            w, value = spread(weights, first + j, 1), base + start_of(rows, j, size) + i
            p = fma(w, load(cache, value), p)
            q = fma(w, load(cache, value + 16), q)
            r = fma(w, load(cache, value + 32), r)
            s = fma(w, load(cache, value + 48), s)
        store(out, at + i, p)
        store(out, at + i + 16, q)
        store(out, at + i + 32, r)
        store(out, at + i + 48, s)
    for i in range(size - size % 64, size, 16):
        n = min(16, size - i)
        p = splat(np.float32(0))
        for j in range(count):
            value = load_some(cache, base + start_of(rows, j, size) + i, n)
            p = fma(spread(weights, first + j, 1), value, p)
        store_some(out, at + i, p, n)


@njit(_nrt=False)
def mix_two(weights, first, cache, base, rows, count, out, at, step, size):
    """Do what `mix` does for two queries, whose weights lie STRETCH apart and results `step`."""
    for i in range(0, size - size % 64, 64):
        p = splat(np.float32(0))
        q, r, s, t, u, v, x = p, p, p, p, p, p, p
        for j in range(count):
            w, value = spread(weights, first + j, 1), base + start_of(rows, j, size) + i
            y = spread(weights, first + STRETCH + j, 1)
            a, b = load(cache, value), load(cache, value + 16)
            c, d = load(cache, value + 32), load(cache, value + 48)
            p, q, r, s = fma(w, a, p), fma(w, b, q), fma(w, c, r), fma(w, d, s)
            t, u, v, x = fma(y, a, t), fma(y, b, u), fma(y, c, v), fma(y, d, x)
        store(out, at + i, p)
        store(out, at + i + 16, q)
        store(out, at + i + 32, r)
        store(out, at + i + 48, s)
        store(out, at + step + i, t)
        store(out, at + step + i + 16, u)
        store(out, at + step + i + 32, v)
        store(out, at + step + i + 48, x)
    for i in range(size - size % 64, size, 16):
        n = min(16, size - i)
        p = splat(np.float32(0))
        q = p
        for j in range(count):
            value = load_some(cache, base + start_of(rows, j, size) + i, n)
            p = fma(spread(weights, first + j, 1), value, p)
            q = fma(spread(weights, first + STRETCH + j, 1), value, q)
        store_some(out, at + i, p, n)
        store_some(out, at + step + i, q, n)


@njit(_nrt=False)
def stretch(q, cache, scales, table, sequence, width, block, kv_heads, head, group, size, first,
            count, query, scale, scores, rows, mixed, record):
    """Compute one key/value head over positions first .. first + count - 1. From `record` on,
    `mixed` gets, for each query head of the group, the largest score, the sum and the mixed values.
    """
    find(rows, table, sequence * width, block, kv_heads, head, first, count)
    score(q, query, group, cache, rows, count, scores, size)
    step, half = size + 2, scales.size // 2
    for h in range(group):
        mine = h * STRETCH
        if half:
            for j in range(count):
                scores[mine + j] *= scales[rows[j]]
        at = record + h * step
        mixed[at], mixed[at + 1] = softmax_row(scores, scores, mine, count, scale)
        if half:
            for j in range(count):
                scores[mine + j] *= scales[half + rows[j]]
    for h in range(0, group - 1, 2):
        mix_two(scores, h * STRETCH, cache, cache.size // 2, rows, count, mixed,
                record + h * step + 2, step, size)
    if group % 2:
        h = group - 1
        mix(scores, h * STRETCH, cache, cache.size // 2, rows, count, mixed, record + h * step + 2,
            size)
