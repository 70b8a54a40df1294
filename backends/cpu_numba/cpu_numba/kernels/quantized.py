"""Products with matrices of integer codes, for a few tokens."""

import numpy as np

from core.backend import Call
from core.dtype import f32
from core.tensor import TensorSpec
from cpu_numba.compiling import bound
from cpu_numba.kernels.compiled import groups, int4, int8, rounding
from cpu_numba.kernels.declare import FLOATS, kernels
from cpu_numba.kernels.flat import flat, wide
from cpu_numba.kernels.linear import few
from cpu_numba.kernels.threads import alone, sharing

DTYPES = {"A": FLOATS, "B": FLOATS, "O": FLOATS}


def _sums_and_tokens(call: Call) -> TensorSpec:
    return TensorSpec((call.dims["T"] * (call.dims["G"] + call.dims["K"]),), f32)


@kernels.implements("quantized_linear", dtypes={**DTYPES, "Q": "i8"}, supports=few, priority=1,
                    workspace=_sums_and_tokens, batch_invariant=True)
def int8_dot(x, codes, scales, zeros, bias, out, *, bits, group_size, workspace):
    split = scales.shape[1] * len(x)
    return bound(groups.product8, flat(x), flat(codes), flat(scales), flat(zeros), wide(bias),
                 flat(out), workspace[:split], workspace[split:], len(x), *codes.shape, group_size,
                 *sharing(x.size * len(codes), (len(codes) + 1) // 2, codes.nbytes))


def whole_bytes(call: Call) -> str | None:
    group = call.attrs["group_size"]
    return None if group % 2 == 0 else f"needs an even group size, got {group}"


def _sums_and_halves(call: Call) -> TensorSpec:
    return TensorSpec((call.dims["T"] * (call.dims["G"] + 2 * call.dims["P"]),), f32)


@kernels.implements("quantized_linear", dtypes={**DTYPES, "Q": "i4x2"}, priority=1,
                    supports=lambda call: few(call) or whole_bytes(call),
                    workspace=_sums_and_halves, batch_invariant=True)
def int4_dot(x, codes, scales, zeros, bias, out, *, bits, group_size, workspace):
    split = scales.shape[1] * len(x)
    return bound(groups.product4, flat(x), flat(codes), flat(scales), flat(zeros), wide(bias),
                 flat(out), workspace[:split], workspace[split:], len(x), len(codes), x.shape[1],
                 group_size, alone(x.size * len(codes)))


def _in_integers(call: Call) -> str | None:
    columns, group = call.dims["K"], call.attrs["group_size"]
    if group not in rounding.GROUPS or columns % group:
        return (f"needs whole groups of {rounding.GROUPS}, got {columns} columns in groups of "
                f"{group}")
    return few(call)


def _whole_words(call: Call) -> str | None:
    columns = call.dims["K"]
    return _in_integers(call) if columns % int4.CODES == 0 else (
        f"needs a multiple of {int4.CODES} columns, got {columns}")


def _terms(x_itemsize: int, out_itemsize: int) -> int:
    """16-bit integers for an element of x: one loses less than a 16-bit result's rounding does."""
    return 1 if x_itemsize == out_itemsize == 2 else 2


def _rounded(call: Call) -> TensorSpec:
    """Sums and scales of x's groups, and x in integers."""
    d, terms = call.dims, _terms(*(call.dtypes[k].itemsize for k in "AO"))
    return TensorSpec((d["T"] * (2 * d["G"] + terms * d["K"] // 2),), f32)


def _pieces(workspace, x, out, groups):
    """The sums, x in integers, and what is left of the workspace."""
    terms, split = _terms(x.itemsize, out.itemsize), len(x) * groups
    sums, scales, rest = np.split(workspace, [split, 2 * split])
    shorts = rest.view(np.int16)
    first, second, _ = np.split(shorts, [x.size, terms * x.size])
    return sums, rounding.Rounded(first, second if terms > 1 else None, scales), rest[
        terms * x.size // 2:]


@kernels.implements("quantized_linear", dtypes={**DTYPES, "Q": "i8"}, supports=_in_integers,
                    priority=2, workspace=_rounded, batch_invariant=True)
def int8_integers(x, codes, scales, zeros, bias, out, *, bits, group_size, workspace):
    sums, rounded, _ = _pieces(workspace, x, out, scales.shape[1])
    return bound(int8.product, flat(x), flat(codes), flat(scales), flat(zeros), wide(bias),
                 flat(out), sums, rounded, len(x), *codes.shape, group_size,
                 *sharing(x.size * len(codes), (len(codes) + 1) // 2, codes.nbytes))


def _turned(call: Call) -> TensorSpec:
    """The same, and x once more as lanes meet it."""
    d, terms = call.dims, _terms(*(call.dtypes[k].itemsize for k in "AO"))
    lanes = d["T"] * d["K"] // 8
    return TensorSpec((_rounded(call).shape[0] + lanes * (5 * terms + 1),), f32)


@kernels.implements("quantized_linear", dtypes={**DTYPES, "Q": "i4x2"}, supports=_whole_words,
                    priority=2, workspace=_turned, batch_invariant=True)
def int4_integers(x, codes, scales, zeros, bias, out, *, bits, group_size, workspace):
    sums, rounded, rest = _pieces(workspace, x, out, scales.shape[1])
    lanes, halves = x.size // 8, x.size // 2
    first, begins, x_scales, second, more, _ = np.split(rest, np.cumsum(
        [halves, lanes, lanes, halves, lanes]))
    both = rounded.second is not None
    turned = int4.Turned(first.view(np.int16), begins.view(np.int32),
                         second.view(np.int16) if both else None,
                         more.view(np.int32) if both else None, x_scales)
    return bound(int4.product, flat(x), flat(codes), flat(scales), flat(zeros), wide(bias),
                 flat(out), sums, rounded, turned, len(x), len(codes), x.shape[1], group_size,
                 *sharing(x.size * len(codes), len(codes), codes.nbytes))
