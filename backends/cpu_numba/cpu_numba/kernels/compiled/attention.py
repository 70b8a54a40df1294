"""Computes attention of single queries over the paged cache, for decoding.

Work is split over tokens, key/value heads and stretches of the context, so that one sequence with
few heads still uses every thread; the query heads of a group share each key that is read. Each
stretch leaves its largest score, its sum and its mixed values, which `join` puts together in order.
"""

import math

import numpy as np

from cpu_numba.kernels.compiled.jit import njit
from cpu_numba.kernels.compiled.rows import fill
from cpu_numba.kernels.compiled.simd import fma, load, load_some, splat, store, store_some, total
from cpu_numba.kernels.compiled.softmax import softmax_row
from cpu_numba.kernels.compiled.spread import on_threads

STRETCH = 128  # positions; their keys or values for one head stay in the first cache


@njit(_nrt=False)
def seen_by(token, starts, lens):
    """Return (sequence of a token, positions that it may see)."""
    s = 0
    while starts[s + 1] <= token:
        s += 1
    return s, lens[s] - (starts[s + 1] - token) + 1 if lens[s] else 0


@njit(_nrt=False)
def score(q, first, cache, at, size):
    """Return the product of a query and a key of the cache."""
    sums = splat(np.float32(0))
    whole = size // 16 * 16
    for i in range(0, whole, 16):
        sums = fma(load(q, first + i), load(cache, at + i), sums)
    if whole < size:
        rest = size - whole
        sums = fma(load_some(q, first + whole, rest), load_some(cache, at + whole, rest), sums)
    return total(sums)


@njit(_nrt=False)
def mix(weights, first, cache, places, stride, base, count, out, at, size):
    """Set out[at:at + size] = the sum of weights[first + j] * the value at places[j]."""
    for i in range(0, size - size % 64, 64):
        p = splat(np.float32(0))
        q, r, s = p, p, p
        for j in range(count):
            w, value = splat(weights[first + j]), base + places[j] * stride + i
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
            value = load_some(cache, base + places[j] * stride + i, n)
            p = fma(splat(weights[first + j]), value, p)
        store_some(out, at + i, p, n)


@njit(_nrt=False)
def stretch(q, cache, scales, table, sequence, width, block, kv_heads, head, group, size, first,
            count, query, scale, scores, places, mixed, record):
    """Compute one key/value head over positions first .. first + count - 1. From `record` on,
    `mixed` gets, for each query head of the group, the largest score, the sum and the mixed values.
    """
    for j in range(count):
        position = first + j
        places[j] = table[sequence * width + position // block] * block + position % block
    for h in range(group):
        for j in range(count):
            place = places[j] * kv_heads + head
            scores[j] = score(q, query + h * size, cache, place * size, size)
            if scales.size:
                scores[j] *= scales[place]
        peak, weight = softmax_row(scores, scores, 0, count, scale)
        if scales.size:
            for j in range(count):
                scores[j] *= scales[scales.size // 2 + places[j] * kv_heads + head]
        at = record + h * (size + 2)
        mixed[at], mixed[at + 1] = peak, weight
        mix(scores, 0, cache, places, kv_heads * size, cache.size // 2 + head * size, count, mixed,
            at + 2, size)


@njit(_nrt=False)
def join(mixed, record, step, count, out, at, size):
    """Set out = what `count` stretches mixed, weighed by their sums relative to the largest
    score."""
    peak = np.float32(-np.inf)
    for c in range(count):
        peak = max(peak, mixed[record + c * step])
    weight = np.float32(0)
    for c in range(count):
        part = record + c * step
        mixed[part] = math.exp(mixed[part] - peak)
        weight += mixed[part] * mixed[part + 1]
    for i in range(0, size, 16):
        n, value = min(16, size - i), splat(np.float32(0))
        for c in range(count):
            part = record + c * step
            value = fma(splat(mixed[part]), load_some(mixed, part + 2 + i, n), value)
        store_some(out, at + i, value * splat(np.float32(1) / weight), n)


@njit(_nrt=False)
def work(unit, q, cache, scales, table, starts, lens, mixed, scores, places, heads, kv_heads, size,
         width, block, stretches, scale):
    """Compute one of the `stretches` of one key/value head for one token, unless the token sees
    nothing of it."""
    group = heads // kv_heads
    number, c = unit // stretches, unit % stretches
    t, head = number // kv_heads, number % kv_heads
    s, seen = seen_by(t, starts, lens)
    if c * STRETCH < seen:
        mine = slice(unit * STRETCH, (unit + 1) * STRETCH)
        stretch(q, cache, scales, table, s, width, block, kv_heads, head, group, size, c * STRETCH,
                min(STRETCH, seen - c * STRETCH), (t * heads + head * group) * size, scale,
                scores[mine], places[mine], mixed, unit * group * (size + 2))


@njit
def attend(q, cache, scales, table, starts, lens, out, mixed, scores, places, tokens, heads,
           kv_heads, size, width, block, scale, alone):
    """Compute every token of q, on one thread if `alone`. `mixed` has (size + 2) * group for each
    unit of work, `scores` and `places` a stretch for each, as if a token saw the whole table."""
    group, longest = heads // kv_heads, 0
    for t in range(tokens):
        longest = max(longest, seen_by(t, starts, lens)[1])
    stretches = -(-longest // STRETCH)
    on_threads(work, tokens * kv_heads * stretches, alone,
               (q, cache, scales, table, starts, lens, mixed, scores, places, heads, kv_heads, size,
                width, block, stretches, scale))
    for t in range(tokens):
        _, seen = seen_by(t, starts, lens)
        for h in range(heads):
            at = (t * heads + h) * size
            if seen <= 0:
                fill(out, at, size)
            else:
                unit = (t * kv_heads + h // group) * stretches
                join(mixed, (unit * group + h % group) * (size + 2), group * (size + 2),
                     -(-seen // STRETCH), out, at, size)
