"""Binds products with float weights: streamed rows for one token, warps for few, cuBLAS or tiles
for many."""

from core import Call, TensorSpec, Tolerance, cuda, f32
from cuda_cupy import blas, shapes
from cuda_cupy.kernels.declare import FLOATS, kernels
from cuda_cupy.kernels.rowwise import add_bias, fill_bias
from cuda_cupy.launch import c_type, launch

FEW = 16  # rows of x up to which the weights' bytes decide


def one_row(call: Call) -> str | None:
    """Say why stream.cuh does not take a call; None if it does."""
    a, w = call.dtypes["A"], call.dtypes["W"]
    if call.dims["T"] != 1:
        return f"takes one row of x, got {call.dims['T']}"
    if a.itemsize < w.itemsize or (a != w and a.itemsize == w.itemsize):
        return f"takes weights of x's dtype or narrower ones, got {w} for {a}"
    return shapes.whole_pieces(call.dims["K"], w.itemsize, a.itemsize)


def three(of, fill=None):
    """Fill up what a kernel takes for each of three weights."""
    return (*of, fill, fill, fill)[:3]


def stream(x, weights, biases, outs):
    """Launch up to three products with one row of x at once."""
    n, width = [w.shape[0] for w in weights], x.shape[1]
    how = shapes.spread(sum(n), width * weights[0].itemsize)
    return launch("gemv.cu", "gemv", (-(-sum(n) // how.rows_a_block),), 32 * how.warps,
                  (x, *three(weights), *three(biases), *three(outs), *three(n, 0)),
                  defines={**how.defines, "K": width, "A": c_type(x), "W": c_type(weights[0]),
                           "O": c_type(outs[0])})


@kernels.implements("linear", name="linear_one", supports=one_row, priority=3,
                    dtypes={"A": FLOATS, "W": FLOATS, "O": FLOATS})
def linear_one(x, weight, bias, out):
    return stream(x, [weight], [bias], [out])


def few(call: Call) -> str | None:
    """Say why a kernel for few rows does not take a call; None if it does."""
    return None if call.dims["T"] <= FEW else f"takes up to {FEW} rows of x, got {call.dims['T']}"


def _few_or_mixed(call: Call) -> str | None:
    a, w = call.dtypes["A"], call.dtypes["W"]
    if a == w and a.itemsize == 2 and call.dims["T"] > 1:
        return f"is slower than tensor cores with {a} on both sides"
    return few(call)


@kernels.implements("linear", name="linear_few", supports=_few_or_mixed, priority=2,
                    dtypes={"A": FLOATS, "W": FLOATS, "O": FLOATS})
def linear_few(x, weight, bias, out):
    tokens, width = x.shape
    vectors = width % (16 // weight.itemsize) == 0 and x.itemsize >= weight.itemsize
    return launch("rows.cu", "rows", (-(-weight.shape[0] // 8) if tokens else 0,), 256,
                  (x, weight, bias, out, tokens, weight.shape[0], width),
                  defines={"A": c_type(x), "W": c_type(weight), "O": c_type(out),
                           "ALIGNED": int(vectors), "TOKENS": token_bucket(tokens)})


def token_bucket(tokens):
    """Round the number of rows that a kernel is compiled for up to a power of two."""
    return 1 << max(0, tokens - 1).bit_length()


def _many(call: Call) -> str | None:
    a, w = call.dtypes["A"], call.dtypes["W"]
    least = 1 if a == w and a.itemsize == 2 else FEW
    return (None if call.dims["T"] > least else
            f"takes over {least} rows of x, got {call.dims['T']}")


def _library(call: Call) -> str | None:
    a, w, o = (call.dtypes[v] for v in "AWO")
    if a != w or o != a:
        return f"takes weights and out of x's dtype; got {a} {w} -> {o}"
    return _many(call)


def _wide(call: Call) -> str | None:
    a, w, o = (call.dtypes[v] for v in "AWO")
    if a != w or a.itemsize != 2 or o.short != "f32":
        return f"takes 16-bit weights of x's dtype, and f32 out; got {a} {w} -> {o}"
    return _many(call)


#: f32 out shows what 16-bit out hides: after every 16 products the sum is cut off, not rounded. On
#: an H100, K = 2048 used 3 times the op's own budget; the bias grows with K.
CUT_OFF = Tolerance(128, 64, "tensor cores cut each sum of 16 products off: up to K / 16 ULP, 512 "
                             "at K = 8192")


@kernels.implements("linear", name="linear_cublas_wide", supports=_wide, priority=1,
                    tolerance=CUT_OFF, dtypes={"A": "f16 bf16", "W": "f16 bf16", "O": "f32"})
def linear_cublas_wide(x, weight, bias, out):
    return linear_cublas(x, weight, bias, out)


def _rounded_bias(call: Call) -> str | None:
    """Refuse a 16-bit bias: cuBLAS rounds the product before it adds what is in `out`, twice in
    total."""
    if call.inputs["bias"] is not None and call.dtypes["O"].short != "f32":
        return f"would round twice: a bias and {call.dtypes['O']} out"
    return _library(call)


@kernels.implements("linear", name="linear_cublas", supports=_rounded_bias, priority=1,
                    dtypes={"A": FLOATS, "W": FLOATS, "O": FLOATS})
def linear_cublas(x, weight, bias, out):
    product = blas.product(x, weight, out, add=bias is not None)
    return cuda.sequence(cuda.nothing if bias is None else fill_bias(bias, out), product)


def _tf32(call: Call) -> str | None:
    return _library(call) if call.inputs["bias"] is None else "takes no bias"


#: Each input keeps 10 bits after the leading one, and may be cut off rather than rounded: 2^-10 of
#: each product for either, in units of float32's 2^-23.
TF32 = Tolerance(4, 2 * 2**13, "inputs are cut to TF32's 10 bits of mantissa, sums are float32")


@kernels.implements("linear", name="linear_tf32", supports=_tf32, priority=2, tolerance=TF32,
                    option="allow_tf32", dtypes={"A": "f32", "W": "f32", "O": "f32"})
def linear_tf32(x, weight, bias, out):
    return blas.product(x, weight, out, add=False, tf32=True)


def _bias_after(call: Call) -> str | None:
    return _library(call) if call.inputs["bias"] is not None else "is for products with a bias"


@kernels.implements("linear", name="linear_cublas_bias", supports=_bias_after, priority=1,
                    dtypes={"A": FLOATS, "W": FLOATS, "O": FLOATS},
                    workspace=lambda call: TensorSpec((call.dims["T"], call.dims["N"]), f32))
def linear_cublas_bias(x, weight, bias, out, *, workspace):
    return cuda.sequence(blas.product(x, weight, workspace, add=False),
                         add_bias(workspace, bias, out))


@kernels.implements("linear", name="linear_tiled", supports=_many,
                    dtypes={"A": FLOATS, "W": FLOATS, "O": FLOATS})
def linear_tiled(x, weight, bias, out):
    (tokens, width), columns = x.shape, weight.shape[0]
    kind = c_type(weight)
    return launch("tiled.cu", "tiled", (-(-columns // 64), -(-tokens // 64)), 256,
                  (x, weight, None, None, bias, out, tokens, columns, width, 1, 1),
                  defines={"A": c_type(x), "W": kind, "B": kind, "O": c_type(out), "BITS": 0})
