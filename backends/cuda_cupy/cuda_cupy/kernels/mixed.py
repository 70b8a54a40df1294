"""Binds attention for steps in which some sequences decode and others compute prompts: each by the
kernel for its number of queries."""

from core import Call, TensorSpec, cuda
from cuda_cupy.kernels.attention import ANY, CODES, TILE, group_parts, grouped, groups, tiled
from cuda_cupy.kernels.declare import kernels
from cuda_cupy.kernels.hopper import attend, attends


def _mixed(call: Call) -> str | None:
    d = call.dims
    if d["S"] < 2 or d["T"] < 2 * d["S"]:
        return ("takes two sequences or more, of two queries or more on average; got "
                f"{d['T']} for {d['S']}")
    return None


def _mixes(call: Call) -> str | None:
    return _mixed(call) or groups(call)


def _mixes_on_hopper(call: Call) -> str | None:
    return _mixed(call) or attends(call)


def _parts(call: Call) -> TensorSpec:
    return group_parts(call, "S")


@kernels.implements("attention", name="attention_mixed_i8", supports=_mixes, priority=3,
                    workspace=_parts, tolerance=CODES, dtypes={"A": "f16 bf16", "C": "i8"})
@kernels.implements("attention", name="attention_mixed", supports=_mixes, priority=3,
                    workspace=_parts, dtypes={"A": "f16 bf16", "C": "f16 bf16"})
def attention_mixed(q, cache, cache_scales, block_table, query_starts, seq_lens, out, *, scale,
                    workspace):
    given = q, cache, cache_scales, block_table, query_starts, seq_lens, out, scale
    sequences, tokens = len(block_table), len(q)
    return cuda.sequence(
        tiled(cuda.cover(tokens, TILE) + min(sequences, tokens // 2), 2, ANY, *given),
        grouped(sequences, *given, workspace, alone=1))


@kernels.implements("attention", name="attention_mixed_hopper", supports=_mixes_on_hopper,
                    priority=4, workspace=_parts, dtypes={"A": "f16 bf16", "C": "f16 bf16"})
def attention_mixed_hopper(q, cache, cache_scales, block_table, query_starts, seq_lens, out, *,
                           scale, workspace):
    given = q, cache, cache_scales, block_table, query_starts, seq_lens, out, scale
    sequences, long = len(block_table), len(q) // TILE  # so many have TILE queries or more, at most
    return cuda.sequence(
        attend(TILE, long, q, cache, block_table, query_starts, seq_lens, out, scale)
        if long else cuda.nothing,
        tiled(sequences, 2, TILE - 1, *given), grouped(sequences, *given, workspace, alone=1))
