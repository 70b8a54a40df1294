"""Binds fused kernels of decode steps; core/ops/fused*.py say what they stand for."""

from core import Call, TensorSpec, cuda, f32
from cuda_cupy import blas, shapes
from cuda_cupy.kernels import quantized
from cuda_cupy.kernels.declare import FLOATS, kernels
from cuda_cupy.kernels.linear import (
    FEW,
    linear_few,
    linear_tiled,
    one_row,
    stream,
)
from cuda_cupy.kernels.rowwise import cache_defines, side_step, swiglu
from cuda_cupy.launch import c_type, launch

_THREADS = 256


def _gate_up(call_args, x, gate, out, defines):
    rows, width = gate.shape
    how = shapes.spread_pairs(rows, width * gate.itemsize)
    return launch("gate_up.cu", "gate_up", (-(-rows // (how.steps * how.warps)),),
                  32 * how.warps, call_args,
                  defines={**how.defines, **defines, "K": width, "A": c_type(x),
                           "W": c_type(gate), "O": c_type(out)})


@kernels.implements("gate_up_swiglu", name="gate_up_one", supports=one_row, priority=1,
                    dtypes={"A": FLOATS, "W": FLOATS})
def gate_up_one(x, gate, up, out):
    return _gate_up((x, gate, up, out, gate.shape[0]), x, gate, out, {"NORM": 0})


@kernels.implements("gate_up_swiglu", name="gate_up_parts", dtypes={"A": FLOATS, "W": FLOATS},
                    workspace=lambda call: TensorSpec((2, call.dims["T"], call.dims["N"]), f32))
def gate_up_parts(x, gate, up, out, *, workspace):
    """Bind two products whose float32 sums swiglu reads: rounded before it, they would be rounded
    twice."""
    if x.dtype == gate.dtype and (len(x) > FEW or x.itemsize == 2):
        both = blas.products(x, (gate, up), (workspace[0], workspace[1]))
    else:
        product = linear_few if len(x) <= FEW else linear_tiled
        both = cuda.sequence(product(x, gate, None, workspace[0]),
                             product(x, up, None, workspace[1]))
    return cuda.sequence(both, swiglu(workspace[0], workspace[1], out))


@kernels.implements("add_norm_gate_up", supports=one_row,
                    dtypes={"A": FLOATS, "W": FLOATS, "G": FLOATS})
def add_norm_gate_up(a, b, norm, gate, up, sum, out, *, eps):
    return _gate_up((a, b, norm, gate, up, sum, out, gate.shape[0], eps), a, gate, out,
                    {"NORM": 1, "G": c_type(norm)})


@kernels.implements("qkv_linear", supports=one_row, dtypes={"A": FLOATS, "W": FLOATS})
def qkv_linear(x, first, second, third, first_bias, second_bias, third_bias, first_out,
                 second_out, third_out):
    return stream(x, [first, second, third], [first_bias, second_bias, third_bias],
                  [first_out, second_out, third_out])


def _rows_of_one_type(call: Call) -> str | None:
    a, w, t = call.dtypes["A"], call.dtypes["W"], call.dims["T"]
    if a != w or t < 2:
        return f"takes several rows, of the weights' dtype; got {t} of {a} for {w}"
    if any(call.inputs[f"{name}_bias"] is not None for name in ("first", "second", "third")):
        return "takes no bias"
    if len({call.dims[n] for n in ("N1", "N2", "N3")}) > 2:
        return "takes two weights of one shape"
    return None


@kernels.implements("qkv_linear", name="qkv_cublas", supports=_rows_of_one_type,
                    dtypes={"A": "f16 bf16", "W": "f16 bf16"})
def qkv_cublas(x, first, second, third, first_out, second_out, third_out):
    parts = [(first, first_out), (second, second_out), (third, third_out)]
    rows = [len(w) for w, _ in parts]
    parts.append(parts.pop(next(i for i in range(3) if len({*rows[:i], *rows[i + 1:]}) == 1)))
    (one, one_out), (two, two_out), (other, other_out) = parts
    return cuda.sequence(blas.products(x, (one, two), (one_out, two_out)),
                         blas.product(x, other, other_out, add=False))


@kernels.implements("rope_kv_write", dtypes={"A": FLOATS, "C": FLOATS})
def rope_kv_write(q, k, v, positions, inv_freq, cache, slots, out, *, interleaved):
    (tokens, heads, size), kv_heads = q.shape, k.shape[1]
    pairs = (heads + 2 * kv_heads) * size // 2
    defines = cache_defines(q, cache)
    return launch("cache.cu", "rope_kv_write", (tokens, -(-pairs // _THREADS)), _THREADS,
                  (q, k, v, positions, inv_freq, cache, slots, out, heads, kv_heads, size,
                   side_step(cache), int(interleaved)), defines=defines)


@kernels.implements("qkv_quantized", supports=quantized.one_row,
                    dtypes={"A": FLOATS, "Q": "i8 i4x2", "B": FLOATS})
def qkv_quantized(x, first, first_scales, first_zeros, second, second_scales, second_zeros, third,
                    third_scales, third_zeros, first_bias, second_bias, third_bias, first_out,
                    second_out, third_out, *, bits, group_size):
    return quantized.stream(x, [(first, first_scales, first_zeros, first_bias, first_out),
                                (second, second_scales, second_zeros, second_bias, second_out),
                                (third, third_scales, third_zeros, third_bias, third_out)],
                            bits, group_size)


@kernels.implements("add_norm_quantized_gate_up", supports=quantized.one_row,
                    dtypes={"A": FLOATS, "G": FLOATS, "Q": "i8 i4x2"})
def add_norm_quantized_gate_up(a, b, norm, gate, gate_scales, gate_zeros, up, up_scales, up_zeros,
                               sum, out, *, eps, bits, group_size):
    rows = gate.shape[0]
    how = shapes.spread_code_pairs(rows, gate.shape[1])
    defines, shared = quantized.stream_defines(a, bits, a.shape[1], group_size, gate_zeros, how)
    return launch("qgate_up.cu", "qgate_up", (-(-rows // (how.rows // 2 * how.warps)),),
                  32 * how.warps,
                  (a, b, norm, gate, gate_scales, gate_zeros, up, up_scales, up_zeros, sum, out,
                   rows, eps), shared=shared, defines={**defines, "G": c_type(norm)})
