"""Computes the first products of a layer's two halves, each with one start of the threads."""

import numpy as np

from core import Call, TensorSpec, f32
from cpu_numba.compiling import bound
from cpu_numba.kernels import linear, quantized
from cpu_numba.kernels.compiled import dot
from cpu_numba.kernels.declare import DOT, FLOATS, kernels
from cpu_numba.kernels.flat import flat, wide
from cpu_numba.kernels.quantized import in_integers, integers_of_x
from cpu_numba.kernels.threads import sharing


@kernels.implements("qkv_linear", dtypes={"A": FLOATS, "W": FLOATS}, supports=linear.few_narrow,
                    family=DOT)
def qkv_linear(x, first, second, third, first_bias, second_bias, third_bias, first_out,
                 second_out, third_out):
    return linear.products(x, (first, first_bias, first_out), (second, second_bias, second_out),
                           (third, third_bias, third_out))


@kernels.implements("qkv_quantized", supports=in_integers, workspace=integers_of_x,
                    dtypes={"A": FLOATS, "Q": "i8 i4x2", "B": FLOATS}, family=DOT)
def qkv_quantized(x, first, first_scales, first_zeros, second, second_scales, second_zeros, third,
                    third_scales, third_zeros, first_bias, second_bias, third_bias, first_out,
                    second_out, third_out, *, bits, group_size, workspace):
    return quantized.products(x, group_size, workspace,
                              (first, first_scales, first_zeros, first_bias, first_out),
                              (second, second_scales, second_zeros, second_bias, second_out),
                              (third, third_scales, third_zeros, third_bias, third_out))


def _rows(call: Call) -> TensorSpec:
    """Return the normed rows."""
    return TensorSpec((call.dims["T"], call.dims["K"]), f32)


@kernels.implements("add_norm_gate_up", dtypes={"A": "f32", "W": FLOATS, "G": FLOATS},
                    supports=linear.few_narrow, workspace=_rows, family=DOT)
def add_norm_gate_up(a, b, norm, gate, up, sum, out, *, eps, workspace):
    how, *both = linear.gated(a, gate, up, out)
    return bound(dot.normed_gated_product, how, flat(a), flat(b), wide(norm), flat(sum),
                 flat(workspace), np.float32(eps), *both, a.shape)


# 16-bit results are not rounded between, as its parts' are: no family
kernels.implements("add_norm_gate_up", dtypes={"A": "f16 bf16", "W": FLOATS, "G": FLOATS},
                   supports=linear.few_narrow, workspace=_rows, name="add_norm_gate_up_16",
                   batch_invariant=True)(add_norm_gate_up)


def _rows_and_integers(call: Call) -> TensorSpec:
    return TensorSpec((call.dims["T"] * call.dims["K"] + integers_of_x(call).sizes[0],), f32)


@kernels.implements("add_norm_quantized_gate_up", supports=in_integers, family=DOT,
                    workspace=_rows_and_integers,
                    dtypes={"A": "f32", "G": FLOATS, "Q": "i8 i4x2"})
def add_norm_quantized_gate_up(a, b, norm, gate, gate_scales, gate_zeros, up, up_scales, up_zeros,
                               sum, out, *, eps, bits, group_size, workspace):
    h, rest = np.split(workspace, [a.size])
    module, *made_of_x = quantized.scratch(rest, a, out, group_size, gate)
    how = sharing(len(a), 2 * gate.size, len(gate), 2 * gate.nbytes)
    return bound(module.normed_gated_product, how, flat(a), flat(b), wide(norm), flat(sum), h,
                 np.float32(eps), *made_of_x,
                 quantized.matrix_of(gate, gate_scales, gate_zeros, None, out),
                 quantized.matrix_of(up, up_scales, up_zeros, None, out), (*a.shape, group_size))


kernels.implements("add_norm_quantized_gate_up", dtypes={"A": "f16 bf16", "G": FLOATS,
                                                         "Q": "i8 i4x2"},
                   supports=in_integers, workspace=_rows_and_integers,
                   name="add_norm_quantized_gate_up_16",
                   batch_invariant=True)(add_norm_quantized_gate_up)
