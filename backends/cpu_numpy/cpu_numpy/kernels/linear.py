"""Multiplies by weight matrices through BLAS. OpenBLAS itself uses every core, one row as well as
many: np.dot on a 64,000 x 2,048 float32 matrix streams about 20 GB/s on two cores; splitting it
over two Python threads was slower (15 to 16 GB/s)."""

from functools import partial

import numpy as np

from core import Call, TensorSpec, f32
from cpu_numpy.kernels.declare import ROWS, kernels

_TRANSPOSED = 1 << 18  # float32 elements at most: 1 MiB, which stays in the L2 cache


def _columns(call: Call) -> TensorSpec:
    """Return memory for the product as [N, T], or none where it is made as [T, N] at once.

    OpenBLAS divides the rows of its left operand among the threads and copies blocks of both. With
    the tokens on the left 2 to 32 of them take 0.6 to 0.9 times as long, and 128 with a matrix
    that is wider than high still 0.94 times; but that leaves the product in columns, and
    transposing a large one costs more."""
    tokens, rows, columns = (call.dims[name] for name in ("T", "N", "K"))
    pays = 2 <= tokens <= (128 if columns >= 2 * rows else 32) and tokens * rows <= _TRANSPOSED
    return TensorSpec((rows if pays else 0, tokens), f32)


@kernels.implements("linear", dtypes={"A": "f32", "W": "f32", "O": "f32"}, workspace=_columns)
def linear(x, weight, bias, out, *, workspace):
    return _by_columns(x, weight, bias, out, workspace) if len(workspace) else _product(
        x, weight, bias, out)


def _by_columns(x, weight, bias, out, columns):
    transposed = columns.T

    def launch():
        np.matmul(x, weight.T, out=transposed)
        if bias is None:
            np.copyto(out, transposed)
        else:
            np.add(transposed, bias, out=out)
    return launch


def _product(x, weight, bias, out):
    product = (partial(np.dot, weight, x[0], out[0]) if len(x) == 1
               else partial(np.matmul, x, weight.T, out))
    if bias is None:
        return product

    def launch():
        product()
        np.add(out, bias, out=out)
    return launch


def _wide(call: Call) -> dict[str, TensorSpec]:
    return {name: TensorSpec(spec.shape, f32) for name in call.op.weight_params
            if (spec := call.inputs[name]) is not None}


def _widen(call, *, packed, **weights):
    """16-bit weights as float32, once: NumPy has no product that widens as it reads."""
    for name, array in weights.items():
        np.copyto(packed[name], array, casting="unsafe")


@kernels.implements("linear", dtypes={"A": "f32", "W": "f16 bf16", "O": "f32"}, prepare=_widen,
                    packs=_wide, workspace=_columns)
def linear_widened(x, weight, bias, out, *, workspace):
    return linear(x, weight, bias, out, workspace=workspace)


def linear_rows(x, weight, bias, out):
    """Multiply one token after another: slower, with the same bits in a batch as alone."""
    rows = [_product(x[t:t + 1], weight, bias, out[t:t + 1]) for t in range(len(x))]

    def launch():
        for row in rows:
            row()
    return launch


kernels.implements("linear", dtypes={"A": "f32", "W": "f32", "O": "f32"}, priority=-1,
                   family=ROWS)(linear_rows)
kernels.implements("linear", dtypes={"A": "f32", "W": "f16 bf16", "O": "f32"}, prepare=_widen,
                   packs=_wide, name="linear_rows_widened", priority=-1, family=ROWS)(linear_rows)


_TILE = 1 << 18  # float32 elements expanded at a time: 1 MiB, which stays in the L2 cache


def _tile_rows(call: Call) -> int:
    return max(1, min(call.dims["N"], _TILE // max(1, call.dims["K"])))


def _tile(call: Call) -> TensorSpec:
    columns = call.dims["G"] * call.attrs["group_size"]
    return TensorSpec((_tile_rows(call), columns), f32)


_QUANTIZED = {"A": "f32", "Q": "i8 i4x2", "B": "f32 f16 bf16", "O": "f32"}


@kernels.implements("quantized_linear", workspace=_tile, dtypes=_QUANTIZED)
def quantized_linear(x, codes, scales, zeros, bias, out, *, bits, group_size, workspace):
    return _by_tiles(x, codes, scales, zeros, bias, out, bits, group_size, workspace, len(x))


@kernels.implements("quantized_linear", workspace=_tile, dtypes=_QUANTIZED, priority=-1,
                    family=ROWS)
def quantized_rows(x, codes, scales, zeros, bias, out, *, bits, group_size, workspace):
    """Multiply one token after another: slower, with the same bits in a batch as alone."""
    return _by_tiles(x, codes, scales, zeros, bias, out, bits, group_size, workspace, 1)


def _by_tiles(x, codes, scales, zeros, bias, out, bits, group_size, workspace, together):
    """Expand some rows of the matrix into cache, multiply them by `together` tokens at a time, go
    on: the matrix stays as codes."""
    rows, columns = workspace.shape
    n, k = codes.shape[0], x.shape[1]
    groups = columns // group_size
    zero = np.float32(0 if bits == 8 else 8)
    offset = None if zeros is None and zero == 0 else (
        np.full_like(scales, zero) if zeros is None else zeros)
    packed = codes.shape[1]
    workspace[:] = 0  # the tail of a short last group

    def launch():
        for start in range(0, n, rows):
            part = slice(start, min(start + rows, n))
            tile = workspace[:part.stop - start]
            if bits == 8:
                np.copyto(tile[:, :k], codes[part])
            else:
                both = tile[:, :2 * packed] if 2 * packed <= columns else tile[:, :columns]
                np.copyto(both[:, 0::2], codes[part] & 15)
                np.copyto(both[:, 1::2], (codes[part] >> 4)[:, :both.shape[1] // 2])
            grouped = tile.reshape(-1, groups, group_size)
            if offset is not None:
                np.subtract(grouped, offset[part, :, None], out=grouped)
            np.multiply(grouped, scales[part, :, None], out=grouped)
            for t in range(0, len(x), max(1, together)):
                mine = slice(t, t + together)
                np.matmul(x[mine], tile[:, :k].T, out=out[mine, part])
        if bias is not None:
            np.add(out, bias, out=out)
    return launch


@kernels.implements("block_linear", dtypes={"A": "f32", "B": "f32 f16 bf16", "O": "f32"},
                    workspace=lambda call: TensorSpec((_tile_rows(call), call.dims["K"]), f32))
def block_linear(x, codes, high, steps, scales, min_steps, minimums, bias, out, *, bits, group_size,
                 block_size, workspace):
    """Expand some rows of the matrix into cache, multiply, go on: the matrix stays as codes."""
    rows, k = workspace.shape
    middle = np.float32(0 if min_steps is not None else 2 ** (bits - 1))
    per_byte = 8 // (bits - 4) if bits > 4 else 0
    shifts = np.arange(0, 8, bits - 4, dtype=np.uint8) if per_byte else None
    more = None if high is None else high.view(np.uint8)

    def of_groups(step, factors, part):
        """Return factors of groups [rows, blocks, groups of a block, 1]."""
        wide = step[part].astype(np.float32)[:, :, None, None]
        return wide if factors is None else wide * factors[part].reshape(
            *wide.shape[:2], -1, 1)

    def launch():
        for start in range(0, len(codes), rows):
            part = slice(start, min(start + rows, len(codes)))
            tile = workspace[:part.stop - start]
            np.copyto(tile[:, 0::2], codes[part] & 15)
            np.copyto(tile[:, 1::2], codes[part] >> 4)
            if more is not None:
                upper = more[part][..., None] >> shifts & np.uint8((1 << bits - 4) - 1)
                tile += (upper << 4).reshape(tile.shape)
            grouped = tile.reshape(len(tile), k // block_size, -1, group_size)
            if middle:
                grouped -= middle
            grouped *= of_groups(steps, scales, part)
            if min_steps is not None:
                grouped -= of_groups(min_steps, minimums, part)
            np.matmul(x, tile.T, out=out[:, part])
        if bias is not None:
            np.add(out, bias, out=out)
    return launch


@kernels.implements("gate_up_swiglu", dtypes={"A": "f32", "W": "f32"},
                    workspace=lambda call: TensorSpec((call.dims["T"], call.dims["N"]), f32))
def gate_up_swiglu(x, gate, up, out, *, workspace):
    products = _product(x, gate, None, workspace), _product(x, up, None, out)

    def launch():
        for product in products:
            product()
        with np.errstate(over="ignore"):  # exp(-gate) = inf gives the right answer, 0
            for first in range(0, len(out), _GATED):
                _gate(workspace[first:first + _GATED], out[first:first + _GATED])
    return launch


_GATED = 16  # tokens: what they have of gate and up stays in a core's cache over the passes


def _gate(gate, up):
    """Compute up *= silu(gate), with gate as scratch; five passes over it."""
    np.multiply(up, gate, out=up)
    np.negative(gate, out=gate)
    np.exp(gate, out=gate)
    np.add(gate, np.float32(1), out=gate)
    np.divide(up, gate, out=up)
