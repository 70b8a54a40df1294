"""Binds attention over the paged cache: one query at a time, or tiles of 128 on tensor cores."""

from core import Call, TensorSpec, Tolerance, cuda, f32
from cuda_pycuda.device import device
from cuda_pycuda.kernels.declare import FLOATS, kernels
from cuda_pycuda.kernels.rowwise import cache_defines, side
from cuda_pycuda.launch import Counters, launch

_WARPS = 8         # of a block: 64 positions at a time for heads of 64
_HEADS = 2         # query heads of a block: their sums live in registers
_SPAN = 128        # positions for which another run of the context pays, as in attention.cu
_MOST_RUNS = 32    # as attention.cu has lanes to put them together
_QUERIES = 128     # of a block of attention_mma.cu
_SIDE = 64         # queries of a block of attention_tiled.cu, and the largest head


def _share(group):
    """Count the query heads of a block, in equal shares of those with one key/value head."""
    return cuda.cover(group, cuda.cover(group, _HEADS))


def _grid(tokens, heads, kv_heads, context):
    """Count blocks by token, heads and run of the context: two a multiprocessor, as registers
    allow."""
    group = heads // kv_heads
    across = kv_heads * cuda.cover(group, _share(group))
    filling = 2 * device().multiprocessors // max(1, tokens * across)
    return tokens, across, max(1, min(filling, cuda.cover(context, _SPAN), _MOST_RUNS))


def _parts(call: Call) -> TensorSpec:
    d = call.dims
    tokens, _, runs = _grid(d["T"], d["H"], d["Hkv"], d["B"] * d["BS"])
    needed = tokens * d["H"] * runs * (d["d"] + 2) if runs > 1 else 0
    return TensorSpec((max(1, needed),), f32)


def _short_heads(call: Call) -> str | None:
    size = call.dims["d"]
    return None if size <= 256 else f"takes head sizes up to 256, got {size}"


@kernels.implements("attention", supports=_short_heads, workspace=_parts,
                    dtypes={"A": FLOATS, "C": f"{FLOATS} i8"})
def attention(q, cache, cache_scales, block_table, query_starts, seq_lens, out, *, scale,
              workspace):
    tokens, heads, size = q.shape
    kv_heads, (sequences, width) = cache.shape[3], block_table.shape
    grid = _grid(tokens if sequences else 0, heads, kv_heads, width * cache.shape[2])
    lanes = 1 << max(0, cuda.cover(size, 8) - 1).bit_length()
    return launch("attention.cu", "attention", grid, 32 * _WARPS,
                  (q, cache, cache_scales, block_table, query_starts, seq_lens, out, workspace,
                   Counters(grid[0] * grid[1]), sequences, width, heads, kv_heads, side(cache),
                   scale),
                  defines={**cache_defines(q, cache), "SIZE": size, "LANES": lanes,
                           "HEADS": _share(heads // kv_heads), "WARPS": _WARPS,
                           "BLOCK": cache.shape[2]})


def _many(call: Call) -> str | None:
    d = call.dims
    return None if d["T"] >= 8 * max(1, d["S"]) else (
        f"takes 8 queries a sequence or more on average, got {d['T']} for {d['S']}")


def _float_tiles(call: Call) -> str | None:
    size = call.dims["d"]
    if size % 8 or size > _SIDE:
        return f"takes head sizes that are multiples of 8 up to {_SIDE}, got {size}"
    return _many(call)


@kernels.implements("attention", name="attention_tiled", supports=_float_tiles, priority=1,
                    dtypes={"A": "f32", "C": f"{FLOATS} i8"})
def attention_tiled(q, cache, cache_scales, block_table, query_starts, seq_lens, out, *, scale):
    return _by_tiles("attention_tiled", _SIDE, 256, q, cache, cache_scales, block_table,
                     query_starts, seq_lens, out, scale)


def _by_tiles(name, queries, threads, q, cache, cache_scales, block_table, query_starts, seq_lens,
              out, scale):
    tokens, heads, size = q.shape
    sequences, width = block_table.shape
    # an upper bound of the tiles of all sequences, whatever their lengths
    return launch(f"{name}.cu", name, (cuda.cover(tokens, queries) + sequences, heads), threads,
                  (q, cache, cache_scales, block_table, query_starts, seq_lens, out, sequences,
                   width, heads, cache.shape[3], side(cache), scale),
                  defines={**cache_defines(q, cache), "SIZE": size, "BLOCK": cache.shape[2]})


def _tiles(call: Call) -> str | None:
    cache, d = call.dtypes["C"], call.dims
    if cache != call.dtypes["A"] and cache.short != "i8":
        return f"takes a cache of the activations' dtype or i8, got {cache}"
    if d["d"] % 16 or d["d"] > 128:
        return f"takes head sizes that are multiples of 16 up to 128, got {d['d']}"
    if call.attrs["scale"] <= 0:
        return f"takes a scale above 0, got {call.attrs['scale']}"
    return _many(call)


#: Of the first tokens, few values make a result: no average makes their roundings smaller.
CODES = Tolerance(8, 4, "as attention; keys and values of an i8 cache are rounded to 16 bits too",
                  roundings=2)


@kernels.implements("attention", name="attention_mma_i8", supports=_tiles, priority=1,
                    tolerance=CODES, dtypes={"A": "f16 bf16", "C": "i8"})
@kernels.implements("attention", name="attention_mma", supports=_tiles, priority=1,
                    dtypes={"A": "f16 bf16", "C": "f16 bf16"})
def attention_mma(q, cache, cache_scales, block_table, query_starts, seq_lens, out, *, scale):
    return _by_tiles("attention_mma", _QUERIES, 128 if q.shape[2] <= 64 else 256, q, cache,
                     cache_scales, block_table, query_starts, seq_lens, out, scale)
