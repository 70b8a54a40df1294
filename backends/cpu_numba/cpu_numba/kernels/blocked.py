"""Multiplies by matrices of codes in blocks."""

import numba
import numpy as np

from core import Call, TensorSpec, f32
from cpu_numba.compiling import bound
from cpu_numba.kernels.compiled import block_panels, block_rows, pairs, rounding
from cpu_numba.kernels.declare import FLOATS, kernels
from cpu_numba.kernels.flat import flat, wide
from cpu_numba.kernels.linear import few
from cpu_numba.kernels.prefill import INTEGERS, chunk_of, pieces_of, unit_of
from cpu_numba.kernels.quantized import terms_in, terms_of
from cpu_numba.kernels.threads import sharing

DTYPES = {"A": FLOATS, "B": FLOATS, "O": FLOATS}


def known(call: Call) -> str | None:
    """Say why no kernel takes these blocks; None if one does."""
    form = tuple(call.attrs[n] for n in ("bits", "group_size", "block_size"))
    two, least, small = (call.inputs.get(n) is not None
                         for n in ("scales", "min_steps", "minimums"))
    if form in block_rows.PRODUCTS and two == (form[2] > form[1]) and small == (two and least):
        return None
    return (f"needs blocks as GGUF has them, got {form[0]} bits in groups of {form[1]}, blocks of "
            f"{form[2]}")


def _sizes(tokens, columns, group, terms):
    """Return the float32 numbers of each part of the scratch: sums of x's groups; its scales, and
    those as lanes meet them; its integers, those in lanes' order, and where sums begin."""
    elements = tokens * columns
    return [elements // group, elements // block_rows.ROUNDED, elements // 8, *terms * [
        elements // 2, elements // 2, elements // 8]]


def _scratch(call: Call) -> TensorSpec:
    return TensorSpec((sum(_sizes(call.dims["T"], call.dims["K"], call.attrs["group_size"],
                                  terms_of(call))),), f32)


def absent(array):
    """Return the array in one axis, or None as it is."""
    return None if array is None else flat(array)


@kernels.implements("block_linear", dtypes=DTYPES, priority=1, workspace=_scratch,
                    supports=lambda call: known(call) or few(call), batch_invariant=True)
def block_dot(x, codes, high, steps, scales, min_steps, minimums, bias, out, *, bits, group_size,
              block_size, workspace):
    terms = terms_in(x.itemsize, out.dtype == np.uint16)
    sizes = _sizes(*x.shape, group_size, terms)
    sums, x_scales, lane_scales, *rest = np.split(workspace, np.cumsum(sizes)[:-1])
    first, lane_first, begins, *finer = [
        part.view(np.int32 if i % 3 == 2 else np.int16) for i, part in enumerate(rest)]
    second, lane_second, second_begins = finer or [None] * 3
    met = block_rows.Met(first, second, x_scales, lane_first, begins, lane_second, second_begins,
                         lane_scales, sums)
    matrix = block_rows.Blocks(flat(codes), *map(absent, (high, steps, scales, min_steps,
                                                          minimums)),
                               wide(bias), flat(out), len(codes), len(codes))
    return bound(block_rows.PRODUCTS[bits, group_size, block_size],
                 sharing(len(x), x.shape[1] * len(codes), len(codes), codes.nbytes), flat(x),
                 rounding.Rounded(first, second, x_scales, sums), met, matrix,
                 min_steps is not None, x.shape)


def _panels(call: Call) -> TensorSpec:
    """Return scratch of `blocks`, and room for the codes of a panel."""
    d, least = call.dims, call.inputs.get("min_steps") is not None
    pieces = pieces_of(d["T"], d["K"], d["K"] // call.attrs["group_size"], least)
    return TensorSpec((sum(pieces) + _room(),), f32)


def _room():
    return numba.get_num_threads() * block_panels.ROOM // 4


@kernels.implements("block_linear", dtypes=DTYPES, workspace=_panels, supports=known)
def block_panel(x, codes, high, steps, scales, min_steps, minimums, bias, out, *, bits, group_size,
                block_size, workspace):
    tokens, columns = x.shape
    kind = unit_of(x, codes, out, group_size)
    unit = 1 if kind == pairs.FLOAT else 2
    sizes = pieces_of(tokens, columns, columns // group_size, min_steps is not None)
    transposed, panels, totals, factors, sums, x_scales, shorts, room = np.split(
        workspace, np.cumsum(sizes))
    rounded = rounding.Rounded(shorts.view(np.int16), None,
                               x_scales if kind == INTEGERS else x_scales[:0], sums)
    matrix = block_rows.Blocks(flat(codes), *map(absent, (high, steps, scales, min_steps,
                                                          minimums)),
                               wide(bias), flat(out), len(codes), len(codes))
    return bound(block_panels.PRODUCTS[bits, group_size, block_size], flat(x), matrix, matrix.bias,
                 matrix.out, transposed[:transposed.size // unit].view(kind), panels.view(kind),
                 room.view(np.int8), totals, factors, sums, rounded, tokens, len(codes), columns,
                 -(-columns // 32) * 32 // unit, unit, group_size,
                 chunk_of(tokens, len(codes)), numba.get_num_threads(), np.zeros(1, np.int64))
