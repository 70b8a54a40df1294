"""Multiplies many tokens by weight matrices."""

import numba
import numpy as np

from core import Call, TensorSpec, f32
from cpu_numba.compiling import bound
from cpu_numba.kernels import linear
from cpu_numba.kernels.compiled import blocks, integers, pairs, rounding
from cpu_numba.kernels.declare import kernels
from cpu_numba.kernels.flat import cut, flat, wide
from cpu_numba.kernels.quantized import DTYPES, whole_bytes
from cpu_numba.kernels.threads import chunk

INTEGERS = np.dtype(np.int32)


def pieces_of(tokens, columns, groups, zeros):
    """Return the sizes of the scratch: transposed tokens; panels, totals and factors; sums of
    groups, their scales and tokens in integers."""
    workers, padded = numba.get_num_threads(), -(-tokens // 4) * 4
    return (padded * (-(-columns // 32) * 32), workers * blocks.ROWS * blocks.DEPTH,
            workers * padded * blocks.ROWS, workers * 2 * groups * blocks.ROWS,
            tokens * groups if zeros else 0, tokens * groups, -(-tokens * columns // 2))


def _scratch(call: Call) -> TensorSpec:
    d, zeros = call.dims, call.inputs.get("zeros") is not None
    return TensorSpec((sum(pieces_of(d["T"], d["K"], d.get("G", 1), zeros)),), f32)


def chunk_of(tokens, rows):
    """Return how many tokens `blocks` multiplies by a panel of rows at a time."""
    return chunk(tokens, blocks.TOKENS, -(-rows // blocks.ROWS))


def unit_of(x, weights, out, group):
    """Choose what panels hold: pairs of bf16 where x has them, the weights fit in them and the
    machine is faster with them; else codes in pairs of integers where it does that, results are
    rounded to bf16, which loses more, and groups are such that no sum overflows; else float32."""
    if (pairs.FASTER and x.dtype == np.uint16 and group % 2 == 0
            and weights.dtype not in (np.float32, np.int16)):
        return pairs.PAIR
    codes = weights.dtype in (np.int8, np.uint8)
    if (integers.FAST and codes and x.itemsize == 2 and out.dtype == np.uint16
            and group in rounding.GROUPS and x.shape[1] % group == 0):
        return INTEGERS
    return pairs.FLOAT


def _product(x, weights, scales, zeros, bias, out, workspace, each, group, middle=0):
    tokens, columns = x.shape
    kind = unit_of(x, weights, out, group)
    unit = 1 if kind == pairs.FLOAT else 2
    sizes = pieces_of(tokens, columns, -(-columns // group), zeros is not None)
    transposed, panels, totals, factors, sums, x_scales, shorts = cut(workspace, sizes)
    transposed = transposed[:transposed.size // unit]
    rounded = rounding.Rounded(shorts.view(np.int16), None,
                               x_scales if kind == INTEGERS else x_scales[:0], sums)
    matrix = blocks.Plain(flat(weights), None if scales is None else flat(scales), flat(zeros),
                          np.float32(middle), each)
    return bound(blocks.product, flat(x), matrix, wide(bias), flat(out), transposed.view(kind),
                 panels.view(kind), panels[:0], totals, factors, sums, rounded, tokens,
                 len(weights), columns, -(-columns // 32) * 32 // unit, unit, group,
                 chunk_of(tokens, len(weights)), numba.get_num_threads(), np.zeros(1, np.int64))


@kernels.implements("linear", dtypes=linear.DTYPES, supports=linear.narrow, workspace=_scratch)
def linear_blocks(x, weight, bias, out, *, workspace):
    columns = x.shape[1]
    return _product(x, weight, None, None, bias, out, workspace, 1, columns + columns % 2)


@kernels.implements("quantized_linear", dtypes={**DTYPES, "Q": "i8"}, workspace=_scratch)
def int8_blocks(x, codes, scales, zeros, bias, out, *, bits, group_size, workspace):
    return _product(x, codes, scales, zeros, bias, out, workspace, 1, group_size)


@kernels.implements("quantized_linear", dtypes={**DTYPES, "Q": "i4x2"}, supports=whole_bytes,
                    workspace=_scratch)
def int4_blocks(x, codes, scales, zeros, bias, out, *, bits, group_size, workspace):
    return _product(x, codes, scales, zeros, bias, out, workspace, 2, group_size, 8)
