"""Binds fused kernels of decode steps; core/ops/fused*.py say what they stand for."""

from core import Call, TensorSpec, cuda, f32
from cuda_pycuda import shapes
from cuda_pycuda.kernels import linear, quantized
from cuda_pycuda.kernels.declare import FLOATS, kernels
from cuda_pycuda.kernels.rowwise import swiglu
from cuda_pycuda.launch import c_type


@kernels.implements("gate_up_swiglu", name="gate_up_one", supports=linear.one_row, priority=1,
                    dtypes={"A": FLOATS, "W": FLOATS})
def gate_up_one(x, gate, up, out):
    return linear.gate_up("gate_up", x, gate, (x, gate, up, out, gate.shape[0]), {})


def _staged(call: Call) -> str | None:
    """Say why x.cuh does not make the norm; None if it does."""
    a, width = call.dtypes["A"], call.dims["K"]
    if call.dtypes.get("W", a).itemsize > a.itemsize:
        return f"takes weights that are no wider than {a}, got {call.dtypes['W']}"
    return None if width * a.itemsize <= shapes.NORM_BYTES else (
        f"takes rows of up to {shapes.NORM_BYTES} bytes, got {width} numbers in {a}")


@kernels.implements("add_norm_gate_up", dtypes={"A": FLOATS, "W": FLOATS, "G": FLOATS},
                    supports=lambda call: linear.one_row(call) or _staged(call))
def add_norm_gate_up(a, b, norm, gate, up, sum, out, *, eps):
    return linear.gate_up("add_norm_gate_up", a, gate,
                          (a, b, norm, gate, up, sum, out, gate.shape[0], eps),
                          {"NORM": 1, "G": c_type(norm)})


def _sums(call: Call) -> TensorSpec:
    d = call.dims
    return TensorSpec((2 * d["T"] * d["N"] + max(1, linear.simt_tiles(call).sums),), f32)


@kernels.implements("gate_up_swiglu", name="gate_up_parts", workspace=_sums,
                    dtypes={"A": FLOATS, "W": FLOATS})
def gate_up_parts(x, gate, up, out, *, workspace):
    """Bind two products whose float32 sums swiglu reads: rounded before it, they would be rounded
    twice."""
    size = out.size
    halves = [workspace.rows(i * size, (i + 1) * size).view(*out.shape) for i in range(2)]
    return cuda.sequence(
        *(linear.linear_few(x, w, None, half) if x.shape[0] <= linear.FEW else
          linear.linear_tiled(x, w, None, half,
                              workspace=workspace.rows(2 * size, workspace.size))
          for w, half in zip((gate, up), halves, strict=True)), swiglu(*halves, out))


@kernels.implements("gate_up_swiglu", name="gate_up_mma", supports=linear.halves, priority=1,
                    workspace=lambda call: linear.mma_tiles(call, gated=True).workspace,
                    dtypes={"A": "f16 bf16", "W": "f16 bf16"})
def gate_up_mma(x, gate, up, out, *, workspace):
    return linear.mma(x, [gate, up], [None], [out], workspace, gated=True)


@kernels.implements("qkv_linear", name="qkv_mma", supports=linear.halves,
                    workspace=lambda call: linear.mma_tiles(call).workspace,
                    dtypes={"A": "f16 bf16", "W": "f16 bf16"})
def qkv_mma(x, first, second, third, first_bias, second_bias, third_bias, first_out, second_out,
            third_out, *, workspace):
    return linear.mma(x, [first, second, third], [first_bias, second_bias, third_bias],
                      [first_out, second_out, third_out], workspace)


@kernels.implements("qkv_linear", supports=linear.one_row, dtypes={"A": FLOATS, "W": FLOATS})
def qkv_linear(x, first, second, third, first_bias, second_bias, third_bias, first_out,
                 second_out, third_out):
    return linear.gemv(x, [first, second, third], [first_bias, second_bias, third_bias],
                       [first_out, second_out, third_out])


@kernels.implements("qkv_quantized", supports=quantized.one_row,
                    dtypes={"A": FLOATS, "Q": "i8 i4x2", "B": FLOATS})
def qkv_quantized(x, first, first_scales, first_zeros, second, second_scales, second_zeros, third,
                    third_scales, third_zeros, first_bias, second_bias, third_bias, first_out,
                    second_out, third_out, *, bits, group_size):
    return quantized.gemv(x, [(first, first_scales, first_zeros, first_bias, first_out),
                              (second, second_scales, second_zeros, second_bias, second_out),
                              (third, third_scales, third_zeros, third_bias, third_out)],
                          bits, group_size)


@kernels.implements("add_norm_quantized_gate_up",
                    supports=lambda call: quantized.one_row(call) or _staged(call),
                    dtypes={"A": FLOATS, "G": FLOATS, "Q": "i8 i4x2"})
def add_norm_quantized_gate_up(a, b, norm, gate, gate_scales, gate_zeros, up, up_scales, up_zeros,
                               sum, out, *, eps, bits, group_size):
    return quantized.gate_up((a, b, norm), (gate, gate_scales, gate_zeros),
                             (up, up_scales, up_zeros), (sum, out), eps, bits, group_size)
