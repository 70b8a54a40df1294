"""The paged cache: writes it, and computes attention over it."""

import numba
import numpy as np

from core import Call, TensorSpec, f32
from cpu_numba.compiling import bound
from cpu_numba.kernels.compiled import attention as single
from cpu_numba.kernels.compiled import cache as paged
from cpu_numba.kernels.compiled import flash
from cpu_numba.kernels.compiled.stretch import STRETCH
from cpu_numba.kernels.declare import DOT, FLOATS, kernels
from cpu_numba.kernels.flat import cut, flat
from cpu_numba.kernels.linear import FEW, few
from cpu_numba.kernels.threads import alone

_DTYPES = {"A": FLOATS, "C": "f32 f16 bf16 i8"}


@kernels.implements("kv_cache_write", dtypes=_DTYPES, family=DOT)
def kv_cache_write(k, v, cache, cache_scales, slots):
    return bound(paged.write, flat(k), flat(v), flat(cache), flat(cache_scales), slots, *k.shape)


def _sizes(tokens, heads, kv_heads, size, positions):
    """Return the sizes of the scratch: what each stretch mixed; scores and places, for each
    thread."""
    stretches, threads = -(-positions // STRETCH), numba.get_num_threads()
    return (tokens * heads * stretches * (size + 2), threads * heads // kv_heads * STRETCH,
            threads * STRETCH)


def _parts(call: Call) -> TensorSpec:
    d = call.dims
    return TensorSpec((sum(_sizes(min(d["T"], FEW), d["H"], d["Hkv"], d["d"], d["B"] * d["BS"])),),
                      f32)


@kernels.implements("attention", dtypes=_DTYPES, supports=few, workspace=_parts, priority=1,
                    family=DOT)
def attention_stretches(q, cache, cache_scales, block_table, query_starts, seq_lens, out, *, scale,
                        workspace):
    return _stretches(q, cache, cache_scales, block_table, query_starts, seq_lens, out, scale,
                      workspace)


def _stretches(q, cache, cache_scales, block_table, query_starts, seq_lens, out, scale, workspace):
    tokens, heads, size = q.shape
    block, kv_heads = cache.shape[2:4]
    positions = block_table.shape[1] * block
    mixed, scores, places = cut(workspace, _sizes(tokens, heads, kv_heads, size, positions))
    workers = 1 if alone(q.size * positions) else numba.get_num_threads()
    return bound(single.attend, flat(q), flat(cache), flat(cache_scales), flat(block_table),
                 query_starts, seq_lens, flat(out), mixed, scores, places.view(np.int32),
                 np.zeros(1, np.int64), workers, tokens, heads, kv_heads, size,
                 block_table.shape[1], block, np.float32(scale))


@kernels.implements("attention", dtypes=_DTYPES, workspace=_parts, priority=-1, family=DOT)
def attention_stretches_many(q, cache, cache_scales, block_table, query_starts, seq_lens, out, *,
                             scale, workspace):
    """Compute attention of a few tokens after another: bits as of a few. It is slower than tiles
    for many tokens of a sequence, and 1.1 to 5 times as fast for one of each."""
    firsts = range(0, len(q), FEW)
    starts = np.empty((len(firsts), len(query_starts)), np.int32)
    launches = [_stretches(q[i:i + FEW], cache, cache_scales, block_table, mine, seq_lens,
                           out[i:i + FEW], scale, workspace)
                for i, mine in zip(firsts, starts, strict=True)]
    offsets = np.arange(0, len(q), FEW, dtype=np.int32)[:, None]

    def launch():
        np.subtract(query_starts, offsets, out=starts)  # counted from each run's first token
        for run in launches:
            run()
    return launch


def _prompts(call: Call) -> str | None:
    tokens, sequences = call.dims["T"], call.dims["S"]
    if tokens <= sequences:  # a tile of one token lays out keys for it alone
        return f"needs more tokens than sequences, got {tokens} of {sequences}"
    group = call.dims["H"] // call.dims["Hkv"]
    return None if group <= flash.QUERIES else (
        f"needs at most {flash.QUERIES} query heads a key/value head, got {group}")


def _blocks(call: Call) -> TensorSpec:
    """Return scratch: for each thread a block of keys and values, a row of scores and one of keys,
    and for each query what is mixed so far and two numbers."""
    size = call.dims["d"]
    piece = (2 * flash.KEYS + 1) * size + flash.KEYS + (2 + size) * flash.QUERIES
    return TensorSpec((numba.get_num_threads(), piece), f32)


@kernels.implements("attention", dtypes=_DTYPES, supports=_prompts, workspace=_blocks)
def attention_tiles(q, cache, cache_scales, block_table, query_starts, seq_lens, out, *, scale,
                    workspace):
    tokens, heads, size = q.shape
    block, kv_heads = cache.shape[2:4]
    return bound(flash.attend, flat(q), flat(cache), flat(cache_scales), flat(block_table),
                 query_starts, seq_lens, flat(out), flat(workspace), len(workspace), tokens, heads,
                 kv_heads, size, block_table.shape[1], block, np.float32(scale))
