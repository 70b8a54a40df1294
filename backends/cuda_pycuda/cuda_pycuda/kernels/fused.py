"""Fused kernels for decode steps; core/ops/fused*.py say what they stand for."""

from core.tensor import TensorSpec
from cuda_pycuda.kernels import linear, quantized
from cuda_pycuda.kernels.declare import FLOATS, kernels
from cuda_pycuda.kernels.rowwise import add_rms_norm, swiglu
from cuda_pycuda.launch import sequence


@kernels.implements("gate_up_swiglu", name="gate_up_one", supports=linear.one_row, priority=1,
                    dtypes={"A": FLOATS, "W": FLOATS})
def gate_up_one(x, gate, up, out):
    return linear.gate_up(x, gate, up, out)


def _product(x, weight, out):
    call = (linear.linear_few if x.shape[0] <= linear.FEW else
            linear.linear_mma if x.dtype == weight.dtype and x.dtype.itemsize == 2
            and x.shape[1] % 8 == 0 else linear.linear_tiled)
    return call(x, weight, None, out)


@kernels.implements("gate_up_swiglu", name="gate_up_parts", dtypes={"A": FLOATS, "W": FLOATS},
                    workspace=lambda call: TensorSpec((2, call.dims["T"], call.dims["N"]),
                                                      call.dtypes["A"]))
def gate_up_parts(x, gate, up, out, *, workspace):
    halves = [workspace.rows(i, i + 1).view(*out.shape) for i in range(2)]
    return sequence(_product(x, gate, halves[0]), _product(x, up, halves[1]),
                    swiglu(*halves, out))


@kernels.implements("three_linear", supports=linear.one_row, dtypes={"A": FLOATS, "W": FLOATS})
def three_linear(x, first, second, third, first_bias, second_bias, third_bias, first_out,
                 second_out, third_out):
    return linear.gemv(x, [first, second, third], [first_bias, second_bias, third_bias],
                       [first_out, second_out, third_out])


@kernels.implements("three_quantized", supports=quantized.one_row,
                    dtypes={"A": FLOATS, "Q": "i8 i4x2", "B": FLOATS})
def three_quantized(x, first, first_scales, first_zeros, second, second_scales, second_zeros, third,
                    third_scales, third_zeros, first_bias, second_bias, third_bias, first_out,
                    second_out, third_out, *, bits, group_size):
    return quantized.gemv(x, [(first, first_scales, first_zeros, first_bias, first_out),
                              (second, second_scales, second_zeros, second_bias, second_out),
                              (third, third_scales, third_zeros, third_bias, third_out)],
                          bits, group_size)


@kernels.implements("add_norm_quantized_gate_up", supports=quantized.one_row,
                    dtypes={"A": FLOATS, "G": FLOATS, "Q": "i8 i4x2"},
                    workspace=lambda call: TensorSpec((call.dims["T"], call.dims["K"]),
                                                      call.dtypes["A"]))
def add_norm_quantized_gate_up(a, b, norm, gate, gate_scales, gate_zeros, up, up_scales, up_zeros,
                               sum, out, *, eps, bits, group_size, workspace):
    return sequence(add_rms_norm(a, b, norm, sum, workspace, eps=eps),
                    quantized.gate_up(workspace, (gate, gate_scales, gate_zeros),
                                      (up, up_scales, up_zeros), out, bits, group_size))
