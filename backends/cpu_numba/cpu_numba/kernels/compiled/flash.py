"""Computes attention of many queries over the paged cache, for prefill: tiles of queries by blocks
of keys, with running largest scores and sums (Dao et al. 2022, https://arxiv.org/abs/2205.14135).

Keys are laid out by dimension first, so that a vector holds the scores of sixteen keys and no sum
runs across lanes; the query heads of a group share each block.
"""

import math

import numpy as np

from cpu_numba.kernels.compiled.attention import seen_by
from cpu_numba.kernels.compiled.jit import njit
from cpu_numba.kernels.compiled.rows import convert_row, fill
from cpu_numba.kernels.compiled.simd import fma, get, load, load_some, splat, store, store_some
from cpu_numba.kernels.compiled.softmax import scale_row, softmax_row
from cpu_numba.kernels.compiled.spread import on_threads

KEYS = 64  # a block: four vectors of scores
QUERIES = 128  # rows of a tile, over all query heads of a group


@njit(_nrt=False)
def fetch(cache, scales, table, sequence, width, block, kv_heads, head, size, first, count, keys,
          values, row):
    """Set keys[i, j] and values[j, i] = dimension i at position first + j; 0 in keys past
    `count`."""
    half_cache, half_scales = cache.size // 2, scales.size // 2
    for j in range(count):
        position = first + j
        place = table[sequence * width + position // block] * block + position % block
        place = place * kv_heads + head
        convert_row(cache, place * size, row, 0, size)
        scale = scales[place] if scales.size else np.float32(1)
        for i in range(size):
            keys[i * KEYS + j] = row[i] * scale
        convert_row(cache, half_cache + place * size, values, j * size, size)
        if scales.size:
            scale_row(values, j * size, size, scales[half_scales + place])
    for j in range(count, KEYS):
        for i in range(size):
            keys[i * KEYS + j] = np.float32(0)


@njit(_nrt=False)
def score_block(q, query, keys, size, scores):
    """Set scores[j] = the query times key j of the block."""
    a = splat(np.float32(0))
    b, c, d = a, a, a
    for i in range(size):
        x, at = splat(get(q, query + i)), i * KEYS
        a = fma(x, load(keys, at), a)
        b = fma(x, load(keys, at + 16), b)
        c = fma(x, load(keys, at + 32), c)
        d = fma(x, load(keys, at + 48), d)
    store(scores, 0, a)
    store(scores, 16, b)
    store(scores, 32, c)
    store(scores, 48, d)


@njit(_nrt=False)
def mix_block(scores, count, values, size, keep, out, at):
    """Set out[at:at + size] = keep * itself + the sum of scores[j] * value j."""
    old = splat(keep)
    for i in range(0, size - size % 64, 64):
        a, b = load(out, at + i) * old, load(out, at + i + 16) * old
        c, d = load(out, at + i + 32) * old, load(out, at + i + 48) * old
        for j in range(count):
            w, value = splat(scores[j]), j * size + i
            a = fma(w, load(values, value), a)
            b = fma(w, load(values, value + 16), b)
            c = fma(w, load(values, value + 32), c)
            d = fma(w, load(values, value + 48), d)
        store(out, at + i, a)
        store(out, at + i + 16, b)
        store(out, at + i + 32, c)
        store(out, at + i + 48, d)
    for i in range(size - size % 64, size, 16):
        n = min(16, size - i)
        a = load_some(out, at + i, n) * old
        for j in range(count):
            a = fma(splat(scores[j]), load_some(values, j * size + i, n), a)
        store_some(out, at + i, a, n)


@njit(_nrt=False)
def tile(q, cache, scales, table, sequence, width, block, heads, kv_heads, head, size, first,
         tokens, seen, scale, out, scratch):
    """Compute tokens first .. first + tokens - 1 of a sequence, the first of which sees `seen`
    keys."""
    group = heads // kv_heads
    keys, values = scratch[:KEYS * size], scratch[KEYS * size:2 * KEYS * size]
    rest = scratch[2 * KEYS * size:]
    scores, row = rest[:KEYS], rest[KEYS:KEYS + size]
    peaks = rest[KEYS + size:KEYS + size + QUERIES]
    sums = rest[KEYS + size + QUERIES:KEYS + size + 2 * QUERIES]
    peaks[:] = -np.inf
    sums[:] = np.float32(0)
    mixed = rest[KEYS + size + 2 * QUERIES:KEYS + size + (2 + size) * QUERIES]
    mixed[:] = np.float32(0)
    for k in range(0, seen + tokens - 1, KEYS):
        fetch(cache, scales, table, sequence, width, block, kv_heads, head, size, k,
              min(KEYS, seen + tokens - 1 - k), keys, values, row)
        for r in range(tokens * group):
            t = r // group
            visible = min(KEYS, seen + t - k)
            if visible <= 0:
                continue
            at = ((first + t) * heads + head * group + r % group) * size
            score_block(q, at, keys, size, scores)
            peak, weight = softmax_row(scores, scores, 0, visible, scale)
            top = max(peak, peaks[r])
            old, new = math.exp(peaks[r] - top), math.exp(peak - top)
            scale_row(scores, 0, visible, new)
            sums[r] = sums[r] * old + weight * new
            peaks[r] = top
            mix_block(scores, visible, values, size, old, mixed, r * size)
    for r in range(tokens * group):
        at = ((first + r // group) * heads + head * group + r % group) * size
        scale_row(mixed, r * size, size, np.float32(1) / sums[r])
        convert_row(mixed, r * size, out, at, size)


@njit(_nrt=False)
def tiles(worker, q, cache, scales, table, starts, lens, out, scratch, workers, tokens, heads,
          kv_heads, size, width, block, scale):
    """Compute every tile of a worker."""
    most, piece = max(1, QUERIES * kv_heads // heads), scratch.size // workers
    mine = scratch[worker * piece:(worker + 1) * piece]
    for unit in range(worker, -(-tokens // most) * kv_heads, workers):
        first, head = unit // kv_heads * most, unit % kv_heads
        end = min(tokens, first + most)
        while first < end:
            s, seen = seen_by(first, starts, lens)
            last = min(end, starts[s + 1])
            if seen > 0:
                tile(q, cache, scales, table, s, width, block, heads, kv_heads, head, size, first,
                     last - first, seen, scale, out, mine)
            else:
                group = heads // kv_heads
                for t in range(first, last):
                    at = (t * heads + head * group) * size
                    fill(out, at, group * size)
            first = last


@njit
def attend(q, cache, scales, table, starts, lens, out, scratch, workers, tokens, heads, kv_heads,
           size, width, block, scale):
    """Every token of q; `scratch` is cut into one piece for each worker."""
    on_threads(tiles, workers, False,
               (q, cache, scales, table, starts, lens, out, scratch, workers, tokens, heads,
                kv_heads, size, width, block, scale))
