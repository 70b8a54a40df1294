"""Binds products with codes in blocks: a warp a row for one token or a few, tiles for many."""

from core import Call, cuda
from cuda_pycuda import shapes
from cuda_pycuda.kernels.declare import FLOATS, kernels
from cuda_pycuda.kernels.linear import few, many, simt, simt_tiles, token_bucket
from cuda_pycuda.kernels.quantized import types_of
from cuda_pycuda.launch import launch

_DTYPES = {"A": FLOATS, "B": FLOATS, "O": FLOATS}


def whole(call: Call) -> str | None:
    """Say why blocks.cuh does not take a call; None if it does."""
    scales, least, minimums = (call.inputs.get(n) is not None
                               for n in ("scales", "min_steps", "minimums"))
    return ("takes minimums with one level or two, as the scales have" if least
            and scales != minimums else None)


def one_row(call: Call) -> str | None:
    """Say why block_gemv.cu does not take a call; None if it does."""
    group, block = call.attrs["group_size"], call.attrs["block_size"]
    if call.dims["T"] != 1 or (group != 16 and group % 32) or block % 32 or (
            call.inputs.get("scales") is not None and block // group % 4):
        return (f"takes one row of x and blocks of four groups of 16 or of multiples of 32, got "
                f"{call.dims['T']}, groups of {group} and blocks of {block}")
    return whole(call)


def _defines(x, scales, min_steps, bias, out, bits, group_size, block_size):
    return {**types_of(x, bias, out), "BITS": bits, "GROUP": group_size, "BLOCK": block_size,
            "SCALES": int(scales is not None), "ZEROS": int(min_steps is not None)}


@kernels.implements("block_linear", name="block_one", supports=one_row, priority=2, dtypes=_DTYPES)
def block_one(x, codes, high, steps, scales, min_steps, minimums, bias, out, *, bits, group_size,
              block_size):
    laps = cuda.cover(codes.shape[1], 512)
    beside = 4 * (bits - 4 + (1 if min_steps is None else 2))
    how = shapes.one_row(laps, laps * 1024 * x.dtype.itemsize, lap_bytes=32 * (16 + beside))
    return launch("block_gemv.cu", "block_gemv",
                  (cuda.cover(codes.shape[0], shapes.WARPS * how["ROWS"]),), 32 * shapes.WARPS,
                  (x, codes, high, steps, scales, min_steps, minimums, bias, out, codes.shape[0]),
                  defines={**_defines(x, scales, min_steps, bias, out, bits, group_size,
                                      block_size), **how, "K": x.shape[1], "NORM": 0})


def _blocks(x, scales, min_steps, bias, out, form):
    return {**_defines(x, scales, min_steps, bias, out, *form), "BLOCKED": 1, "ALIGNED": 1}


@kernels.implements("block_linear", name="block_few", priority=1, dtypes=_DTYPES,
                    supports=lambda call: few(call) or whole(call))
def block_few(x, codes, high, steps, scales, min_steps, minimums, bias, out, *, bits, group_size,
              block_size):
    tokens, rows = x.shape[0], codes.shape[0]
    return launch("gemv_few.cu", "gemv_few", (cuda.cover(rows, 8) if tokens else 0,), 256,
                  (x, codes, high, steps, scales, min_steps, minimums, bias, out, tokens, rows,
                   x.shape[1], 0, 0),
                  defines={**_blocks(x, scales, min_steps, bias, out,
                                     (bits, group_size, block_size)),
                           "TOKENS": token_bucket(tokens)})


@kernels.implements("block_linear", name="block_tiled", dtypes=_DTYPES,
                    supports=lambda call: many(call) or whole(call),
                    workspace=lambda call: simt_tiles(call).workspace)
def block_tiled(x, codes, high, steps, scales, min_steps, minimums, bias, out, *, bits, group_size,
                block_size, workspace):
    return simt(x, (codes, high, steps, scales, min_steps, minimums), bias, out, (0, 0), workspace,
                _blocks(x, scales, min_steps, bias, out, (bits, group_size, block_size)))
