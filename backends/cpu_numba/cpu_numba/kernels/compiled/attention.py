"""Computes attention of single queries over the paged cache, for decoding.

Work is split over tokens, key/value heads and stretches of the context, so that one sequence with
few heads still uses every thread; the query heads of a group share each key and value that is
read. Each stretch leaves its largest score, its sum and its mixed values, which `join` puts
together in order.
"""

import math

import numpy as np

from cpu_numba.kernels.compiled.jit import njit
from cpu_numba.kernels.compiled.rows import fill
from cpu_numba.kernels.compiled.simd import fma, load_some, splat, store_some
from cpu_numba.kernels.compiled.spread import on_threads
from cpu_numba.kernels.compiled.stretch import STRETCH, stretch
from cpu_numba.kernels.compiled.work_queue import claim


@njit(_nrt=False)
def seen_by(token, starts, lens):
    """Return (sequence of a token, positions that it may see)."""
    s = 0
    while starts[s + 1] <= token:
        s += 1
    return s, lens[s] - (starts[s + 1] - token) + 1 if lens[s] else 0


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
def work(unit, q, cache, scales, table, starts, lens, mixed, scores, rows, heads, kv_heads, size,
         width, block, stretches, scale):
    """Compute one of the `stretches` of one key/value head for one token, unless the token sees
    nothing of it."""
    group = heads // kv_heads
    number, c = unit // stretches, unit % stretches
    t, head = number // kv_heads, number % kv_heads
    s, seen = seen_by(t, starts, lens)
    if c * STRETCH < seen:
        stretch(q, cache, scales, table, s, width, block, kv_heads, head, group, size, c * STRETCH,
                min(STRETCH, seen - c * STRETCH), (t * heads + head * group) * size, scale,
                scores, rows, mixed, unit * group * (size + 2))


@njit(_nrt=False)
def units(worker, count, some, counter, q, cache, scales, table, starts, lens, mixed, scores, rows,
          heads, kv_heads, size, width, block, stretches, scale):
    """Compute units that no other worker has claimed, `some` at a time."""
    most = heads // kv_heads * STRETCH
    mine = scores[worker * most:(worker + 1) * most]
    here = rows[worker * STRETCH:(worker + 1) * STRETCH]
    unit = claim(counter, some)
    while unit < count:
        for i in range(unit, min(count, unit + some)):
            work(i, q, cache, scales, table, starts, lens, mixed, mine, here, heads, kv_heads,
                 size, width, block, stretches, scale)
        unit = claim(counter, some)


@njit
def attend(q, cache, scales, table, starts, lens, out, mixed, scores, rows, counter, workers,
           tokens, heads, kv_heads, size, width, block, scale):
    """Compute every token of q. `mixed` has (size + 2) * group for each unit of work, as if a token
    saw the whole table; `rows` has a stretch for each worker, `scores` one for each query of a
    group too."""
    group, longest = heads // kv_heads, 0
    for t in range(tokens):
        longest = max(longest, seen_by(t, starts, lens)[1])
    stretches = -(-longest // STRETCH)
    count = tokens * kv_heads * stretches
    counter[0] = 0
    on_threads(units, workers, workers == 1,
               (count, max(1, count // (4 * workers)), counter, q, cache, scales, table, starts,
                lens, mixed, scores, rows, heads, kv_heads, size, width, block, stretches, scale))
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
