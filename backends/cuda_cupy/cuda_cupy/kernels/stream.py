"""Binds products of few rows of x, 16-bit, that stream the weights through Hopper's tensor cores
(wgmma) by the copy engine."""

from core import Call, cuda
from cuda_cupy.device import device
from cuda_cupy.kernels.hopper import STAGE, hopper_products, operands, weight_rows
from cuda_cupy.kernels.products import declare_products
from cuda_cupy.kernels.skinny import few_rows
from cuda_cupy.launch import c_type, launch
from cuda_cupy.tensor_map import tensor_map

_WIDEST = 64          # rows of x; with more of them cuBLAS is faster in a step
_SMALL = 8192         # rows of W, from which a multiprocessor has a tile or more to itself
_BESIDE = 100 * 1024  # bytes of shared memory that leave room for a block of the next kernel
_CLUSTER = 8          # blocks that may share a tile's columns


def _streams(call: Call) -> str | None:
    if not 2 <= call.dims["T"] <= _WIDEST:
        return f"takes 2 to {_WIDEST} rows of x, got {call.dims['T']}"
    rows = sum(weight_rows(call))
    refused = hopper_products(call)
    if not refused and rows < _SMALL and not few_rows(call) and call.op.name != "gate_up_swiglu":
        return f"is slower than skinny.cu with under {_SMALL} rows of W, got {rows}"
    return refused


def _stream(x, weights, biases, outs, *, gated):
    tokens, width = x.shape
    rows = [w.shape[0] for w in weights]
    columns = next(n for n in (16, 32, 64) if tokens <= n)
    height = 64 if gated else 128  # rows of out of a tile
    tiles = sum(cuda.cover(n, height) for n in rows[:1 if gated else 3])
    split = 1  # by the weights alone: a row is summed in one way, however many rows x has
    while (split < _CLUSTER and 2 * split * tiles <= device().multiprocessors
           and width >= 2 * split * 4 * STAGE):
        split *= 2
    stage = (128 + columns) * STAGE * 2
    stages = _BESIDE // stage
    maps = [tensor_map(x.data.ptr, (width, tokens), (STAGE, columns)),
            *(tensor_map(w.data.ptr, (width, len(w)), (STAGE, height)) for w in weights)]
    kinds = {"A": c_type(x), "O": c_type(outs[0])}
    return launch("stream_hopper.cu", "stream_hopper", (tiles * split,), 160,
                  operands(maps, biases, outs, tokens, width, rows), shared=stages * stage + 128,
                  defines={**kinds, "COLUMNS": columns, "STAGES": stages, "SPLIT": split,
                           "GATED": int(gated), "BF16": int(kinds["A"] == "bf16")})


declare_products("stream", _streams, _stream, priority=3, gated_priority=3)
