"""Attention over the paged cache: uses keys and values where they lie when a sequence's blocks
follow each other, as they do for a single sequence, and gathers them otherwise."""

import numpy as np

from core import Call, TensorSpec, f32
from cpu_numpy.kernels.declare import ROWS, kernels

_SCORES = 1 << 21  # float32 elements of scores held at a time: 8 MiB
_TILE = 32  # tokens: scores that stay in a core's cache, and few that are masked


def _quantize(rows):
    peak = np.max(np.abs(rows), axis=-1)
    scales = np.where(peak > 0, peak / np.float32(127), np.float32(1)).astype(np.float32)
    return np.rint(rows / scales[..., None]).clip(-127, 127), scales


@kernels.implements("kv_cache_write", dtypes={"A": "f32 f16 bf16", "C": "f32 f16 bf16 i8"},
                    family=ROWS)
def kv_cache_write(k, v, cache, cache_scales, slots):
    keys, values = cache.reshape(2, -1, *k.shape[1:])
    sides = ((0, k, keys), (1, v, values))

    def launch():
        stored = slots >= 0
        everything = stored.all()
        where = slots if everything else slots[stored]
        for side, rows, target in sides:
            kept = rows if everything else rows[stored]
            if cache_scales is not None:
                kept, scales = _quantize(kept.astype(np.float32))
                cache_scales[side].reshape(-1, k.shape[1])[where] = scales
            target[where] = kept.astype(target.dtype, copy=False)
    return launch


def _scratch(call: Call) -> TensorSpec:
    context = call.dims["B"] * call.dims["BS"]
    group = call.dims["H"] // call.dims["Hkv"]
    rows = max(1, min(call.dims["T"], _TILE, _SCORES // max(1, context * group)))
    return TensorSpec((rows * group * max(1, context),), f32)


@kernels.implements("attention", dtypes={"A": "f32", "C": "f32 f16 bf16 i8"}, workspace=_scratch)
def attention(q, cache, cache_scales, block_table, query_starts, seq_lens, out, *, scale,
              workspace):
    return _attention(q, cache, cache_scales, block_table, query_starts, seq_lens, out, scale,
                      workspace)


@kernels.implements("attention", dtypes={"A": "f32", "C": "f32 f16 bf16 i8"}, priority=-1,
                    family=ROWS)
def attention_rows(q, cache, cache_scales, block_table, query_starts, seq_lens, out, *, scale):
    """Compute attention of one query after another: slower, the same bits in a batch as alone."""
    return _attention(q, cache, cache_scales, block_table, query_starts, seq_lens, out, scale)


def _attention(q, cache, cache_scales, block_table, query_starts, seq_lens, out, scale,
               workspace=None):
    """Bind attention, many queries of a sequence at once if there is a workspace for it."""
    tokens, heads, size = q.shape
    block_size, kv_heads = cache.shape[2:4]
    group = heads // kv_heads
    flat = cache.reshape(2, -1, kv_heads, size)
    flat_scales = None if cache_scales is None else cache_scales.reshape(2, -1, kv_heads)
    queries, results = (a.reshape(tokens, kv_heads, group, size) for a in (q, out))

    def context(row, length):
        """Return (keys, values) of one sequence as float32 [length, Hkv, d], a view where
        possible."""
        blocks = row[:-(-length // block_size)]
        if len(blocks) == 1 or (np.diff(blocks) == 1).all():
            where = slice(blocks[0] * block_size, blocks[0] * block_size + length)
        else:
            where = (blocks[:, None] * block_size + np.arange(block_size)).reshape(-1)[:length]
        kv = flat[:, where].astype(np.float32, copy=False)
        if flat_scales is not None:
            kv *= flat_scales[:, where, :, None]
        return kv

    def one_query(t, keys, values):
        scores = np.matmul(queries[t] * np.float32(scale), keys.transpose(1, 2, 0))
        total = _exponentials(scores.reshape(heads, -1))
        np.matmul(scores, values.transpose(1, 0, 2), out=results[t])
        np.divide(results[t], total.reshape(kv_heads, group, 1), out=results[t])

    def many_queries(start, stop, keys, values):
        length = len(keys)
        step = max(1, min(_TILE, workspace.size // (group * length)))
        for first in range(start, stop, step):
            last = min(first + step, stop)
            count = last - first
            seen = length - (stop - last)  # keys that the tile's last query may see
            scores = workspace[:count * group * seen].reshape(-1, seen)
            # of the newest keys no query may see all
            newest = scores.reshape(count, group, seen)[:, :, max(0, seen - count):]
            hidden = ~np.tri(count, newest.shape[2], newest.shape[2] - count, bool)[:, None]
            for h in range(kv_heads):
                tile = (queries[first:last, h] * np.float32(scale)).reshape(-1, size)
                np.matmul(tile, keys[:seen, h].T, out=scores)
                np.copyto(newest, -np.inf, where=hidden)
                total = _exponentials(scores)
                np.matmul(scores, values[:seen, h], out=tile)
                np.divide(tile.reshape(count, group, size), total.reshape(count, group, 1),
                          out=results[first:last, h])

    def launch():
        for s, length in enumerate(seq_lens.tolist()):
            start, stop = int(query_starts[s]), int(query_starts[s + 1])
            if length == 0:
                out[start:stop] = 0
                continue
            keys, values = context(block_table[s], length)
            if stop - start == 1 or workspace is None:
                for t in range(start, stop):
                    seen = length - (stop - 1 - t)
                    one_query(t, keys[:seen], values[:seen])
            else:
                many_queries(start, stop, keys, values)
    return launch


_IN_RANGE = 40  # of scores: their exponentials and sums of those are far from float32's limits


def _exponentials(scores):
    """Compute exp of scores [rows, keys] in place, and the sums of the rows [rows], which are
    divided by after the product with the values: a head has fewer numbers than a context.

    Where they would leave float32's range, or nearly, it is of each row's difference to its
    maximum. The first key, which every query sees, says that no row is far below 0 as a whole."""
    if not (scores.max() <= _IN_RANGE and scores[:, 0].min() >= -_IN_RANGE):  # nor for NaN
        np.subtract(scores, scores.max(axis=-1, keepdims=True), out=scores)
    np.exp(scores, out=scores)
    return np.einsum("rk->r", scores)
