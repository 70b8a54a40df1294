"""Binds attention over the paged cache: one query at a time, by lanes or by tensor cores for the
heads of a group, or tiles of 64 queries."""

from collections.abc import Mapping

from core import Call, TensorSpec, Tolerance, cuda, f32
from cuda_cupy.arrays import counters
from cuda_cupy.device import device
from cuda_cupy.kernels.declare import FLOATS, kernels
from cuda_cupy.kernels.rowwise import cache_defines, side_step
from cuda_cupy.launch import c_type, launch

_SPAN = 512       # positions below which attention.cu does not split the context
_MOST_PARTS = 32  # as attention.cu has lanes to merge them
_REGISTERS = 16   # query elements that a lane of attention.cu holds
TILE = 64         # queries of a block of attention_tiled.cu
ANY = 2**31 - 1    # queries of a sequence
_GROUP = 8        # query heads of a block of attention_grouped.cu
_GROUP_SPAN = 256  # positions below which it does not split the context
_WARPS_A_MULTIPROCESSOR = 16  # of it, that run at once


#: Of the first tokens, few values make a result: no average makes their roundings smaller.
CODES = Tolerance(8, 4, "as attention; keys and values of an i8 cache are rounded to 16 bits too",
                  roundings=2)


def _lanes(size):
    """Count the lanes that share a position: a power of two that divides the head size."""
    return next(n for n in (8, 4, 2, 1) if size % n == 0)


def _heads(group, size):
    """Count the query heads of a block: as many as fit, in equal shares of the group."""
    fit = max(1, _REGISTERS // (size // _lanes(size)))
    return -(-group // -(-group // fit))


def _grid(tokens, heads, kv_heads, size, context):
    """Count blocks by token, heads and part of the context; a multiprocessor holds one at a
    time."""
    group = heads // kv_heads
    across = kv_heads * -(-group // _heads(group, size))
    filling = device().multiprocessors // max(1, tokens * across)
    return tokens, across, max(1, min(filling, -(-context // _SPAN), _MOST_PARTS))


def _partials(dims: Mapping[str, int], rows: int, splits: int) -> TensorSpec:
    """Return the room of merge.cuh for each of `rows` tokens, head and part of the context."""
    needed = rows * dims["H"] * splits * (dims["d"] + 2) if splits > 1 else 0
    return TensorSpec((max(1, needed),), f32)


def _parts(call: Call) -> TensorSpec:
    d = call.dims
    return _partials(d, d["T"], _grid(d["T"], d["H"], d["Hkv"], d["d"], d["B"] * d["BS"])[2])


def _launch(entry, grid, warps, q, cache, cache_scales, block_table, query_starts, seq_lens, out,
            scale, workspace, defines):
    """Launch one of the two kernels that take a query token a block, and merge parts."""
    sequences, width = block_table.shape
    return launch(f"{entry}.cu", entry, grid, 32 * warps,
                  (q, cache, cache_scales, block_table, query_starts, seq_lens, out, workspace,
                   counters(grid[0] * grid[1]), sequences, width, q.shape[1], cache.shape[3],
                   side_step(cache), scale),
                  defines={**cache_defines(q, cache), "SIZE": q.shape[2], "WARPS": warps,
                           "BLOCK": cache.shape[2], **defines})


@kernels.implements("attention", dtypes={"A": FLOATS, "C": f"{FLOATS} i8"}, workspace=_parts)
def attention(q, cache, cache_scales, block_table, query_starts, seq_lens, out, *, scale,
              workspace):
    tokens, heads, size = q.shape
    kv_heads, (sequences, width) = cache.shape[3], block_table.shape
    grid = _grid(tokens if sequences else 0, heads, kv_heads, size, width * cache.shape[2])
    heads_a_block = _heads(heads // kv_heads, size)
    share = size // _lanes(size)  # of a head, in a lane: of three keys and values, queries and sums
    held = 6 * -(-share * cache.itemsize // 4) + 2 * heads_a_block * share
    warps = 16 if held <= 112 else 8
    return _launch("attention", grid, warps, q, cache, cache_scales, block_table, query_starts,
                   seq_lens, out, scale, workspace,
                   {"LANES": _lanes(size), "HEADS": heads_a_block})


def _one_type(call: Call) -> str | None:
    cache = call.dtypes["C"]
    if cache != call.dtypes["A"] and cache.short != "i8":
        return f"takes a cache of the activations' dtype or i8, got {cache}"
    return None


def _group_grid(tokens, heads, kv_heads, context):
    """Count warps of a block, and blocks by token, heads and part of the context."""
    across = kv_heads * cuda.cover(heads // kv_heads, _GROUP)
    blocks, room = max(1, tokens * across), device().multiprocessors * _WARPS_A_MULTIPROCESSOR
    warps = 4 if 8 * blocks >= room else 8
    splits = max(1, min(room // (warps * blocks), cuda.cover(context, _GROUP_SPAN), _MOST_PARTS))
    return warps, (tokens, across, splits)


def group_parts(call: Call, rows: str = "T") -> TensorSpec:
    """Return the scratch of `grouped` for a block for each of the dimension `rows`."""
    d = call.dims
    return _partials(d, d[rows], _group_grid(d[rows], d["H"], d["Hkv"], d["B"] * d["BS"])[1][2])


def groups(call: Call) -> str | None:
    """Refuse what attention_grouped.cu does not take."""
    d = call.dims
    if d["d"] % 32 or d["d"] > 128:
        return f"takes head sizes that are multiples of 32 up to 128, got {d['d']}"
    if d["T"] < 2:
        return f"takes two query tokens or more, got {d['T']}"
    return _one_type(call)


@kernels.implements("attention", name="attention_grouped_i8", supports=groups, priority=1,
                    workspace=group_parts, tolerance=CODES, dtypes={"A": "f16 bf16", "C": "i8"})
@kernels.implements("attention", name="attention_grouped", supports=groups, priority=1,
                    workspace=group_parts, dtypes={"A": "f16 bf16", "C": "f16 bf16"})
def attention_grouped(q, cache, cache_scales, block_table, query_starts, seq_lens, out, *, scale,
                      workspace):
    return grouped(len(q) if len(block_table) else 0, q, cache, cache_scales, block_table,
                   query_starts, seq_lens, out, scale, workspace, alone=0)


def grouped(rows, q, cache, cache_scales, block_table, query_starts, seq_lens, out, scale,
            workspace, *, alone):
    """Launch attention_grouped.cu for `rows` queries, or, where `alone`, for so many sequences, of
    which it takes those with one query."""
    context = block_table.shape[1] * cache.shape[2]
    warps, grid = _group_grid(rows, q.shape[1], cache.shape[3], context)
    return _launch("attention_grouped", grid, warps, q, cache, cache_scales, block_table,
                   query_starts, seq_lens, out, scale, workspace,
                   {"BF16": int(c_type(q) == "bf16"), "ALONE": alone})


def _tiles(call: Call) -> str | None:
    d = call.dims
    if d["d"] % 16 or d["d"] > 128:
        return f"takes head sizes that are multiples of 16 up to 128, got {d['d']}"
    if d["T"] < 8 * max(1, d["S"]):
        return f"takes 8 queries a sequence or more on average, got {d['T']} for {d['S']}"
    return _one_type(call)


@kernels.implements("attention", name="attention_tiled_i8", supports=_tiles, priority=2,
                    tolerance=CODES, dtypes={"A": "f16 bf16", "C": "i8"})
@kernels.implements("attention", name="attention_tiled", supports=_tiles, priority=2,
                    dtypes={"A": "f16 bf16", "C": "f16 bf16"})
def attention_tiled(q, cache, cache_scales, block_table, query_starts, seq_lens, out, *, scale):
    # an upper bound of the tiles of all sequences, whatever their lengths
    tiles = cuda.cover(len(q), TILE) + len(block_table)
    return tiled(tiles, 1, ANY, q, cache, cache_scales, block_table, query_starts, seq_lens, out,
                 scale)


def tiled(tiles, least, most, q, cache, cache_scales, block_table, query_starts, seq_lens, out,
          scale):
    """Launch attention_tiled.cu for sequences of `least` to `most` queries."""
    heads, size = q.shape[1:]
    sequences, width = block_table.shape
    kind = c_type(q)
    return launch("attention_tiled.cu", "attention_tiled", (tiles, heads), 128,
                  (q, cache, cache_scales, block_table, query_starts, seq_lens, out, sequences,
                   width, heads, cache.shape[3], side_step(cache), scale),
                  defines={**cache_defines(q, cache), "SIZE": size, "BLOCK": cache.shape[2],
                           "LEAST": least, "MOST": most, "BF16": int(kind == "bf16")})
