"""Binds products with float weights: a warp a row for one token or a few, tiles for many."""

from core import Call, cuda
from cuda_pycuda import shapes
from cuda_pycuda.device import device
from cuda_pycuda.kernels.declare import FLOATS, kernels
from cuda_pycuda.launch import Counters, c_type, launch

FEW = 16  # rows of x up to which the weights' bytes decide
_DTYPES = {"A": FLOATS, "W": FLOATS, "O": FLOATS}


def one_row(call: Call) -> str | None:
    """Say why gemv.cu does not take a call; None if it does."""
    piece = 16 // call.dtypes["W"].itemsize
    if call.dims["T"] != 1:
        return f"takes one row of x, got {call.dims['T']}"
    return None if call.dims["K"] % piece == 0 else (
        f"takes rows in whole 16-byte pieces of {piece}, got {call.dims['K']}")


def few(call: Call) -> str | None:
    return None if call.dims["T"] <= FEW else f"takes up to {FEW} rows of x, got {call.dims['T']}"


def many(call: Call) -> str | None:
    return None if call.dims["T"] > FEW else f"takes over {FEW} rows of x, got {call.dims['T']}"


def _defines(x, weight, out, how):
    return {**how, "K": x.shape[1], "A": c_type(x), "W": c_type(weight), "O": c_type(out),
            "NORM": 0}


def _spread(x, weight, rows=1):
    """Choose how gemv.cu takes rows. An x that is narrower than the weights comes from the cache: a
    lane's share of it is less than a piece."""
    a, w = x.dtype.itemsize, weight.dtype.itemsize
    laps = cuda.cover(weight.shape[1] * w, 512)
    return shapes.one_row(laps, laps * 512 // w * a if a >= w else None, rows=rows)


def gemv(x, weights, biases, outs):
    """Launch up to three products with one row of x at once."""
    n = [w.shape[0] for w in weights]
    how, fill = _spread(x, weights[0]), [None] * (3 - len(n))
    return launch("gemv.cu", "gemv", (cuda.cover(sum(n), shapes.WARPS),), 32 * shapes.WARPS,
                  (x, *weights, *fill, *biases, *fill, *outs, *fill, *n, *(0 for _ in fill)),
                  defines=_defines(x, weights[0], outs[0], how))


@kernels.implements("linear", name="linear_one", supports=one_row, priority=2, dtypes=_DTYPES)
def linear_one(x, weight, bias, out):
    return gemv(x, [weight], [bias], [out])


def gate_up(entry, x, gate, arguments, defines):
    """Launch gemv.cu once for swiglu of two products with one row, such as x."""
    how = _spread(x, gate, rows=2)
    return launch("gemv.cu", entry, (cuda.cover(gate.shape[0], shapes.WARPS),), 32 * shapes.WARPS,
                  arguments, defines={**_defines(x, gate, x, how), **defines})


def token_bucket(tokens):
    """Round the number of rows that a kernel is compiled for up to a power of two."""
    return 1 << max(0, tokens - 1).bit_length()


def _matrix_defines(x, weight, bias, out):
    return {"A": c_type(x), "W": c_type(weight), "O": c_type(out), "BITS": 0,
            "B": c_type(weight if bias is None else bias), "ALIGNED": int(x.shape[1] % 8 == 0)}


@kernels.implements("linear", name="linear_few", supports=few, priority=1, dtypes=_DTYPES)
def linear_few(x, weight, bias, out):
    (tokens, width), rows = x.shape, weight.shape[0]
    return launch("gemv_few.cu", "gemv_few", (cuda.cover(rows, 8) if tokens else 0,), 256,
                  (x, weight, None, None, bias, out, tokens, rows, width, 1, 1),
                  defines={**_matrix_defines(x, weight, bias, out),
                           "TOKENS": token_bucket(tokens)})


def halves(call: Call) -> str | None:
    """Say why gemm_mma.cu does not take a call with float weights; None if it does."""
    a, w = call.dtypes["A"], call.dtypes["W"]
    if a != w:
        return f"takes weights of x's dtype, got {w} for {a}"
    return many(call) or (None if call.dims["K"] % 8 == 0 else
                          f"takes rows that are a multiple of 8, got {call.dims['K']}")


def mma_tiles(call: Call, *, gated=False) -> shapes.Tiles:
    d = call.dims
    return shapes.tiles(shapes.MMA, d["T"], [d[n] for n in ("N", "N1", "N2", "N3") if n in d],
                        d["K"], device().multiprocessors, gated=gated)


def mma(x, weights, biases, outs, workspace, *, gated=False):
    """Launch up to three products at once, or swiglu of two, by gemm_mma.cu.

    workspace  float32, of as many elements as `mma_tiles` says
    """
    (tokens, width), kind = x.shape, c_type(x)
    n, fill = [out.shape[1] for out in outs], [None] * (3 - len(outs))
    how = shapes.tiles(shapes.MMA, tokens, n, width, device().multiprocessors, gated=gated)
    return launch("gemm_mma.cu", "gemm_mma", how.grid, 128,
                  (x, *weights, *[None] * (3 - len(weights)), None, None, *biases, *fill, *outs,
                   *fill, workspace, Counters(how.grid[0] * how.grid[1]), tokens, *n,
                   *(0 for _ in fill), width, 1, 1, how.columns),
                  defines={**how.defines, "A": kind, "B": kind, "O": c_type(outs[0]), "BITS": 0,
                           "ZEROS": 0, "GATED": int(gated)})


@kernels.implements("linear", name="linear_mma", supports=halves, priority=1,
                    workspace=lambda call: mma_tiles(call).workspace,
                    dtypes={"A": "f16 bf16", "W": "f16 bf16", "O": FLOATS})
def linear_mma(x, weight, bias, out, *, workspace):
    return mma(x, [weight], [bias], [out], workspace)


def simt_tiles(call: Call) -> shapes.Tiles:
    d = call.dims
    return shapes.tiles(shapes.SIMT, d["T"], [d["N"]], d["K"], device().multiprocessors)


def simt(x, matrix, bias, out, group, workspace, defines):
    """Launch gemm.cu: out = x @ matrix.T + bias.

    matrix     tensors, as weights.cuh names them
    group      columns and groups of a scale
    workspace  float32, of as many elements as `simt_tiles` says
    """
    (tokens, width), rows = x.shape, out.shape[1]
    how = shapes.tiles(shapes.SIMT, tokens, [rows], width, device().multiprocessors)
    return launch("gemm.cu", "gemm", how.grid, 256,
                  (x, *matrix, bias, out, workspace, Counters(how.grid[0] * how.grid[1]), tokens,
                   rows, width, *group, how.columns), defines={**defines, **how.defines})


@kernels.implements("linear", name="linear_tiled", supports=many, dtypes=_DTYPES,
                    workspace=lambda call: simt_tiles(call).workspace)
def linear_tiled(x, weight, bias, out, *, workspace):
    return simt(x, (weight, None, None), bias, out, (1, 1), workspace,
                _matrix_defines(x, weight, bias, out))
