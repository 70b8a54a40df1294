"""Binds products with codes in blocks: streamed rows for one token, tiles on tensor cores for
more."""

from core import Call
from cuda_cupy import shapes
from cuda_cupy.kernels.declare import FLOATS, kernels
from cuda_cupy.kernels.quantized import LARGEST, kinds_of, tile
from cuda_cupy.launch import c_type, launch

_DTYPES = {"A": FLOATS, "B": FLOATS, "O": FLOATS}


def whole(call: Call) -> str | None:
    """Say why blocks.cuh does not take a call; None if it does."""
    group, block = call.attrs["group_size"], call.attrs["block_size"]
    if (group not in (16, 32) and group % 32) or block % 32:
        return f"takes groups of 16 or of multiples of 32, got {group} in blocks of {block}"
    least, scales, minimums = (call.inputs.get(n) is not None
                               for n in ("min_steps", "scales", "minimums"))
    return "takes minimums where there are scales" if least and scales != minimums else None


def one_row(call: Call) -> str | None:
    """Say why block_gemv.cu does not take a call; None if it does."""
    tokens, width = call.dims["T"], call.dims["K"]
    if tokens != 1 or 4 * width > LARGEST:
        return f"takes one row of x of up to {LARGEST // 4} columns, got {tokens} of {width}"
    return whole(call)


def _defines(x, bias, out, scales, min_steps, bits, group_size, block_size):
    return {**kinds_of(x, bias, out), "BITS": bits, "GROUP": group_size, "BLOCK": block_size,
            "SCALES": int(scales is not None), "ZEROS": int(min_steps is not None)}


@kernels.implements("block_linear", name="block_one", dtypes=_DTYPES, supports=one_row, priority=1)
def block_one(x, codes, high, steps, scales, min_steps, minimums, bias, out, *, bits, group_size,
              block_size):
    rows, width = codes.shape[0], x.shape[1]
    how = shapes.spread_blocks(rows, codes.shape[1])
    defines = _defines(x, bias, out, scales, min_steps, bits, group_size, block_size)
    return launch("block_gemv.cu", "block_gemv", (-(-rows // how.rows_a_block),), 32 * how.warps,
                  (x, codes, high, steps, scales, min_steps, minimums, bias, out, rows),
                  defines={**defines, "K": width, "ROWS": how.rows, "KSPLIT": how.split,
                           "WARPS": how.warps, "MAX_DEPTH": how.depth},
                  shared=-(-width // 1024) * 4096)


@kernels.implements("block_linear", name="block_tensor_cores", dtypes=_DTYPES, supports=whole)
def block_tensor_cores(x, codes, high, steps, scales, min_steps, minimums, bias, out, *, bits,
                       group_size, block_size):
    (tokens, width), columns = x.shape, codes.shape[0]
    height, wide, deep = tile(tokens, columns, x.itemsize)
    defines = _defines(x, bias, out, scales, min_steps, bits, group_size, block_size)
    return launch("qtiled.cu", "qtiled", (-(-columns // wide), -(-tokens // height)), 256,
                  (x, codes, high, steps, scales, min_steps, minimums, bias, out, tokens, columns,
                   width, group_size, width // group_size),
                  defines={**defines, "BF16": int(c_type(x) != "f16"), "ROWS": height, "DEEP": deep,
                           "BLOCKED": 1})
