"""Products with weight matrices for many tokens."""

import numba

from core.backend import Call
from core.dtype import f32
from core.tensor import TensorSpec
from cpu_numba.compiling import bound
from cpu_numba.kernels.compiled import blocks
from cpu_numba.kernels.declare import kernels
from cpu_numba.kernels.flat import flat, wide
from cpu_numba.kernels.quantized import DTYPES, whole_bytes


def _panels(call: Call) -> TensorSpec:
    return TensorSpec((numba.get_num_threads(), blocks.PANEL * blocks.DEPTH), f32)


@kernels.implements("linear", dtypes={"A": "f32", "W": "f32 f16 bf16", "O": "f32"},
                    workspace=_panels)
def linear_blocks(x, weight, bias, out, *, workspace):
    return bound(blocks.product, flat(x), flat(weight), wide(bias), flat(out), flat(workspace),
                 len(x), *weight.shape, len(workspace))


@kernels.implements("quantized_linear", dtypes={**DTYPES, "Q": "i8"}, workspace=_panels)
def int8_blocks(x, codes, scales, zeros, bias, out, *, bits, group_size, workspace):
    return bound(blocks.product8, flat(x), flat(codes), flat(scales), flat(zeros), wide(bias),
                 flat(out), flat(workspace), len(x), *codes.shape, group_size, len(workspace))


@kernels.implements("quantized_linear", dtypes={**DTYPES, "Q": "i4x2"}, supports=whole_bytes,
                    workspace=_panels)
def int4_blocks(x, codes, scales, zeros, bias, out, *, bits, group_size, workspace):
    return bound(blocks.product4, flat(x), flat(codes), flat(scales), flat(zeros), wide(bias),
                 flat(out), flat(workspace), len(x), len(codes), x.shape[1], group_size,
                 len(workspace))
