"""Multiplies many tokens in bf16 on AMX's tiles, where the processor has them."""

import numba
import numpy as np

from core import Call, TensorSpec, f32
from cpu_numba import machine
from cpu_numba.compiling import bound
from cpu_numba.kernels.compiled import amx, tiled
from cpu_numba.kernels.declare import FLOATS, kernels
from cpu_numba.kernels.flat import cut, flat, wide
from cpu_numba.kernels.linear import FEW
from cpu_numba.kernels.threads import chunk

FIRST = 1  # 1.3 to 4.4 times as fast as AVX-512 on 1 to 16 cores of an Emerald Rapids Xeon


def _many(call: Call) -> str | None:
    tokens = call.dims["T"]
    return None if tokens > FEW else f"is for more than {FEW} tokens, got {tokens}"


def _whole_steps(call: Call) -> str | None:
    group = call.attrs["group_size"]
    return _many(call) if group % tiled.COLUMNS == 0 else (
        f"needs groups of a multiple of {tiled.COLUMNS} columns, got {group}")


def _sizes(tokens, columns, parts):
    """Return the 32-bit words of each part of the scratch: tokens, panels, and sums as they
    leave."""
    steps, workers = -(-columns // tiled.COLUMNS), numba.get_num_threads()
    return (-(-tokens // amx.SIDE) * steps * amx.TILE, workers * steps * parts * 2 * amx.TILE,
            workers * 4 * amx.TILE)


def _scratch_of(parts):
    return lambda call: TensorSpec((sum(_sizes(call.dims["T"], call.dims["K"], parts)),), f32)


def _product(function, parts, x, matrix, rows, bias, out, workspace):
    tokens, columns = x.shape
    packed, panels, totals = cut(workspace, _sizes(tokens, columns, parts))
    return bound(function, flat(x), matrix, wide(bias), flat(out), packed.view(np.uint32),
                 panels.view(np.uint32), totals, tokens, rows, columns,
                 chunk(tokens, tiled.BLOCK, -(-rows // tiled.ROWS)), numba.get_num_threads(),
                 np.zeros(1, np.int64))


@kernels.implements("linear", dtypes={"A": "bf16", "W": "bf16", "O": FLOATS}, supports=_many,
                    workspace=_scratch_of(1), priority=FIRST, machine=machine.without_tiles)
def linear_tiles(x, weight, bias, out, *, workspace):
    return _product(tiled.floats, 1, x, flat(weight), len(weight), bias, out, workspace)


# results in float32 would keep more than the two parts of a weight do
@kernels.implements("quantized_linear", supports=_whole_steps, workspace=_scratch_of(2),
                    dtypes={"A": "bf16", "Q": "i8 i4x2", "B": FLOATS, "O": "bf16"}, priority=FIRST,
                    machine=machine.without_tiles)
def quantized_tiles(x, codes, scales, zeros, bias, out, *, bits, group_size, workspace):
    matrix = flat(codes), flat(scales), flat(zeros), 8 // bits, group_size
    return _product(tiled.codes, 2, x, matrix, len(codes), bias, out, workspace)
