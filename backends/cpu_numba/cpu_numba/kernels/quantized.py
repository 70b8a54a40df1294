"""Multiplies a few tokens by matrices of integer codes."""

import numpy as np

from core import Call, TensorSpec, bf16, f32, i4x2
from cpu_numba.compiling import bound
from cpu_numba.kernels.compiled import groups, int4, int8, rounding
from cpu_numba.kernels.declare import DOT, FLOATS, WIDENED, kernels
from cpu_numba.kernels.flat import cut, flat, wide
from cpu_numba.kernels.linear import few
from cpu_numba.kernels.threads import sharing

DTYPES = {"A": FLOATS, "B": FLOATS, "O": FLOATS}


def matrix_of(codes, scales, zeros, bias, out):
    """Return a matrix: products read two rows of bytes at once, and one of nibbles."""
    pieces = (len(codes) + 1) // 2 if codes.dtype == np.int8 else len(codes)
    return groups.Matrix(flat(codes), flat(scales), flat(zeros), wide(bias), flat(out), len(codes),
                         pieces)


def _shared(x, matrices):
    """Return how threads share the rows of `matrices`."""
    return sharing(len(x), x.shape[1] * sum(m.rows for m in matrices),
                   sum(m.pieces for m in matrices), sum(m.codes.nbytes for m in matrices))


def _sums_and_tokens(call: Call) -> TensorSpec:
    return TensorSpec((call.dims["T"] * (call.dims["G"] + call.dims["K"]),), f32)


@kernels.implements("quantized_linear", dtypes={**DTYPES, "Q": "i8"}, supports=few, priority=1,
                    workspace=_sums_and_tokens, family=WIDENED)
def int8_dot(x, codes, scales, zeros, bias, out, *, bits, group_size, workspace):
    sums, wide_x = np.split(workspace, [len(x) * scales.shape[1]])
    matrix = matrix_of(codes, scales, zeros, bias, out)
    return bound(groups.product8, _shared(x, [matrix]), flat(x), (wide_x, sums), matrix,
                 (*x.shape, group_size))


# of many tokens these are slower than blocks, with the bits of a few
kernels.implements("quantized_linear", dtypes={**DTYPES, "Q": "i8"}, name="int8_dot_many",
                   priority=-2, workspace=_sums_and_tokens, family=WIDENED)(int8_dot)


def whole_bytes(call: Call) -> str | None:
    group = call.attrs["group_size"]
    return None if group % 2 == 0 else f"needs an even group size, got {group}"


def _sums_and_halves(call: Call) -> TensorSpec:
    return TensorSpec((call.dims["T"] * (call.dims["G"] + 2 * call.dims["P"]),), f32)


@kernels.implements("quantized_linear", dtypes={**DTYPES, "Q": "i4x2"}, priority=1,
                    supports=lambda call: few(call) or whole_bytes(call),
                    workspace=_sums_and_halves, family=WIDENED)
def int4_dot(x, codes, scales, zeros, bias, out, *, bits, group_size, workspace):
    sums, halves = np.split(workspace, [len(x) * scales.shape[1]])
    matrix = matrix_of(codes, scales, zeros, bias, out)
    return bound(groups.product4, _shared(x, [matrix]), flat(x), (halves, sums), matrix,
                 (*x.shape, group_size))


kernels.implements("quantized_linear", dtypes={**DTYPES, "Q": "i4x2"}, supports=whole_bytes,
                   name="int4_dot_many", priority=-2, workspace=_sums_and_halves,
                   family=WIDENED)(int4_dot)


def in_whole_groups(call: Call) -> str | None:
    columns, group = call.dims["K"], call.attrs["group_size"]
    if group not in rounding.GROUPS or columns % group:
        return (f"needs whole groups of {rounding.GROUPS}, got {columns} columns in groups of "
                f"{group}")
    if call.dtypes["Q"] is i4x2 and columns % int4.CODES:
        return f"needs a multiple of {int4.CODES} columns, got {columns}"
    return None


def in_integers(call: Call) -> str | None:
    return in_whole_groups(call) or few(call)


def terms_in(x_itemsize: int, to_bf16: bool) -> int:
    """Return how many 16-bit integers an element of x takes: one loses far less than rounding a
    result to bf16 does, but beside f16, which keeps eight times as much, a tenth of its budget."""
    return 1 if x_itemsize == 2 and to_bf16 else 2


def _sizes(tokens: int, columns: int, group: int, terms: int, nibbles: bool) -> list[int]:
    """Return the float32 numbers of each part of the scratch: sums and scales of x's groups; its
    integers; beside nibbles its scales, integers and where sums begin as lanes meet them."""
    elements = tokens * columns
    sizes = [elements // group] * 2 + [elements // 2] * terms
    return sizes + ([elements // 8] + [elements // 2, elements // 8] * terms if nibbles else [])


def terms_of(call: Call) -> int:
    """Return how many 16-bit integers an element of a call's x takes."""
    x = call.dtypes["A"]
    return terms_in(x.itemsize, call.dtypes.get("O", x) is bf16)


def integers_of_x(call: Call) -> TensorSpec:
    """Return scratch of the products in integers."""
    return TensorSpec((sum(_sizes(call.dims["T"], call.dims["K"], call.attrs["group_size"],
                                  terms_of(call), call.dtypes["Q"] is i4x2)),), f32)


def scratch(workspace, x, out, group, codes):
    """Return the module whose products multiply such codes, and what they take for x."""
    terms, nibbles = terms_in(x.itemsize, out.dtype == np.uint16), codes.dtype == np.uint8
    sizes = _sizes(*x.shape, group, terms, nibbles)
    sums, scales, *rest = cut(workspace, [*sizes, 0])[:len(sizes)]
    whole = [r.view(np.int16) for r in rest[:terms]] + [None] * (2 - terms)
    rounded = rounding.Rounded(*whole, scales, sums)
    if not nibbles:
        return int8, rounded
    lane_scales, *met = rest[terms:]
    met = [m.view(np.int32 if i % 2 else np.int16) for i, m in enumerate(met)]
    return int4, rounded, int4.Transposed(*met, *[None] * (4 - len(met)), lane_scales, sums)


def products(x, group_size, workspace, *matrices):
    """Bind products of one to three (codes, scales, zeros, bias, out), shared by threads."""
    module, *made_of_x = scratch(workspace, x, matrices[0][-1], group_size, matrices[0][0])
    made = [matrix_of(*m) for m in matrices]
    how = _shared(x, made)
    made += [made[0]._replace(rows=0, pieces=0)] * (3 - len(made))
    return bound(module.products, how, flat(x), *made_of_x, *made, (*x.shape, group_size))


@kernels.implements("quantized_linear", dtypes={**DTYPES, "Q": "i8 i4x2"}, supports=in_integers,
                    priority=2, workspace=integers_of_x, family=DOT)
def integer_dot(x, codes, scales, zeros, bias, out, *, bits, group_size, workspace):
    return products(x, group_size, workspace, (codes, scales, zeros, bias, out))


kernels.implements("quantized_linear", dtypes={**DTYPES, "Q": "i8 i4x2"}, supports=in_whole_groups,
                   name="integer_dot_many", priority=-1, workspace=integers_of_x,
                   family=DOT)(integer_dot)
