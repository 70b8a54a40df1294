"""Looks up rows of tables that are kept in codes, and expands only these."""

import numpy as np

from core import Call, TensorSpec, f32
from cpu_numba.compiling import bound
from cpu_numba.kernels.compiled import lookup
from cpu_numba.kernels.declare import DOT, FLOATS, kernels
from cpu_numba.kernels.flat import flat


def _row(call: Call) -> TensorSpec:
    return TensorSpec((call.attrs["columns"],), f32)


def _or_none(array, dtype):
    """Return all elements in one axis; no elements, of the same dtype, for an absent array: one
    compiled function takes every form."""
    return np.empty(0, dtype) if array is None else flat(array)


@kernels.implements("quantized_embedding", dtypes={"Q": "i8 i4x2", "O": FLOATS}, workspace=_row,
                    family=DOT)
def quantized_embedding(ids, codes, scales, zeros, out, *, bits, group_size, columns, workspace):
    return bound(lookup.groups, ids, flat(codes).view(np.uint8), flat(scales), flat(zeros),
                 flat(out), workspace, codes.shape[1], scales.shape[1], bits, group_size)


@kernels.implements("block_embedding", dtypes={"O": FLOATS}, workspace=_row, family=DOT)
def block_embedding(ids, codes, high, steps, scales, min_steps, minimums, out, *, bits, group_size,
                    block_size, columns, workspace):
    table = lookup.Blocks(flat(codes), _or_none(high, np.int8).view(np.uint8), flat(steps),
                          _or_none(scales, np.int8), _or_none(min_steps, steps.dtype),
                          _or_none(minimums, np.int8))
    return bound(lookup.blocks, ids, table, flat(out), workspace, bits, group_size, block_size)
