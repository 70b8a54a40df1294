"""Products with matrices of integer codes, for a few tokens."""

import numpy as np

from core.backend import Call
from core.dtype import f32
from core.tensor import TensorSpec
from cpu_numba.compiling import bound
from cpu_numba.kernels.compiled import groups, pairs, words
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


def _whole_words(call: Call) -> str | None:
    tokens, columns, group = call.dims["T"], call.dims["K"], call.attrs["group_size"]
    if tokens != 1:
        return f"is for one token, got {tokens}"
    if columns % words.CODES:
        return f"needs a multiple of {words.CODES} columns, got {columns}"
    return None if group in (32, 64) or group % words.CODES == 0 else (
        f"needs groups of 32, 64 or a multiple of {words.CODES}, got {group}")


@kernels.implements("quantized_linear", dtypes={**DTYPES, "Q": "i4x2"}, priority=2,
                    supports=_whole_words, batch_invariant=True,
                    workspace=lambda call: TensorSpec((call.dims["G"] + call.dims["K"],), f32))
def int4_words(x, codes, scales, zeros, bias, out, *, bits, group_size, workspace):
    split, paired = scales.shape[1], pairs.PAIRED and x.dtype == np.uint16
    turned = workspace[split:].view(np.uint16 if paired else np.float32)
    return bound(words.product, flat(x), flat(codes), flat(scales), flat(zeros), wide(bias),
                 flat(out), workspace[:split], turned, len(codes), x.shape[1], group_size, paired,
                 *sharing(x.size * len(codes), (len(codes) + 1) // 2, codes.nbytes))
