"""Binds products with quantised weights: a warp a row for one token or a few, tiles for many."""

from core import Call, TensorSpec, cuda
from cuda_pycuda import shapes
from cuda_pycuda.device import device
from cuda_pycuda.kernels.declare import FLOATS, kernels
from cuda_pycuda.kernels.linear import few, many, simt, simt_tiles, token_bucket
from cuda_pycuda.launch import Counters, c_type, launch

_DTYPES = {"A": FLOATS, "Q": "i8 i4x2", "B": FLOATS, "O": FLOATS}
_STRIP = 32  # columns that gemm_mma.cu multiplies at a time


def one_row(call: Call) -> str | None:
    """Say why quantized_gemv.cu does not take a call; None if it does."""
    piece, width, group = 128 // call.attrs["bits"], call.dims["K"], call.attrs["group_size"]
    if call.dims["T"] != 1:
        return f"takes one row of x, got {call.dims['T']}"
    return None if width % piece == 0 and group % piece == 0 else (
        f"takes rows and groups in whole 16-byte pieces of {piece} codes, got {width} in groups of "
        f"{group}")


def types_of(x, bias, out):
    return {"A": c_type(x), "B": c_type(x if bias is None else bias), "O": c_type(out)}


def _defines(x, bias, out, bits, group_size, zeros, how):
    return {**types_of(x, bias, out), **how, "K": x.shape[1], "BITS": bits, "GROUP": group_size,
            "ZEROS": int(zeros is not None), "NORM": 0}


def _spread(x, codes, zeros, bits, rows=1):
    """Choose how quantized_gemv.cu takes rows: a lane holds 16 bytes of codes, a scale, and a zero
    where there are any."""
    laps = cuda.cover(codes.shape[1], 512)
    return shapes.one_row(laps, laps * 4096 // bits * x.dtype.itemsize,
                          lap_bytes=32 * (20 if zeros is None else 24), rows=rows)


def gemv(x, matrices, bits, group_size):
    """Launch up to three products with one row of x at once: (codes, scales, zeros, bias, out)."""
    n = [m[0].shape[0] for m in matrices]
    codes, _, zeros, bias, out = matrices[0]
    how, fill = _spread(x, codes, zeros, bits), [None] * (3 - len(n))
    arguments = [a for column in zip(*matrices, strict=True) for a in (*column, *fill)]
    return launch("quantized_gemv.cu", "quantized_gemv", (cuda.cover(sum(n), shapes.WARPS),),
                  32 * shapes.WARPS, (x, *arguments, *n, *(0 for _ in fill)),
                  defines=_defines(x, bias, out, bits, group_size, zeros, how))


def gate_up(normed, gate, up, outs, eps, bits, group_size):
    """Launch once for the norm of a sum, (a, b, weight), and swiglu of its two products; gate and
    up are (codes, scales, zeros), outs the sum and the result."""
    x, rows = normed[0], gate[0].shape[0]
    how = _spread(x, gate[0], gate[2], bits, rows=2)
    return launch("quantized_gemv.cu", "add_norm_gate_up",
                  (cuda.cover(rows, shapes.WARPS),), 32 * shapes.WARPS,
                  (*normed, *gate, *up, *outs, rows, eps),
                  defines={**_defines(x, None, x, bits, group_size, gate[2], how), "NORM": 1,
                           "G": c_type(normed[2])})


@kernels.implements("quantized_linear", name="quantized_one", supports=one_row, priority=2,
                    dtypes=_DTYPES)
def quantized_one(x, codes, scales, zeros, bias, out, *, bits, group_size):
    return gemv(x, [(codes, scales, zeros, bias, out)], bits, group_size)


def _arguments(x, codes, scales, zeros, bias, out, group_size):
    rows, groups = scales.shape
    return (x, codes, scales, zeros, bias, out, x.shape[0], rows, x.shape[1], group_size, groups)


def _matrix_defines(x, bias, out, bits, group_size):
    whole = x.shape[1] % 8 == 0 and group_size % 8 == 0
    return {**types_of(x, bias, out), "BITS": bits, "ALIGNED": int(whole)}


@kernels.implements("quantized_linear", name="quantized_few", supports=few, priority=1,
                    dtypes=_DTYPES)
def quantized_few(x, codes, scales, zeros, bias, out, *, bits, group_size):
    tokens = x.shape[0]
    blocks = cuda.cover(codes.shape[0], 8) if tokens else 0
    return launch("gemv_few.cu", "gemv_few", (blocks,), 256,
                  _arguments(x, codes, scales, zeros, bias, out, group_size),
                  defines={**_matrix_defines(x, bias, out, bits, group_size),
                           "TOKENS": token_bucket(tokens)})


def _tensor_cores(call: Call) -> str | None:
    width, group = call.dims["K"], call.attrs["group_size"]
    return many(call) or (None if width % 8 == 0 and group % _STRIP == 0 else
                          f"takes rows that are a multiple of 8 in groups of whole {_STRIP}, got "
                          f"{width} in groups of {group}")


def _mma_tiles(tokens, rows, width, group_size):
    return shapes.tiles(shapes.MMA_CODES, tokens, [rows], width, device().multiprocessors,
                        unit=group_size)


def _mma_sums(call: Call) -> TensorSpec:
    d = call.dims
    return _mma_tiles(d["T"], d["N"], d["K"], call.attrs["group_size"]).workspace


@kernels.implements("quantized_linear", name="quantized_mma", supports=_tensor_cores, priority=1,
                    dtypes={**_DTYPES, "A": "f16 bf16"}, workspace=_mma_sums)
def quantized_mma(x, codes, scales, zeros, bias, out, *, bits, group_size, workspace):
    (tokens, width), (rows, groups) = x.shape, scales.shape
    how, fill = _mma_tiles(tokens, rows, width, group_size), (None, None)
    return launch("gemm_mma.cu", "gemm_mma", how.grid, 128,
                  (x, codes, *fill, scales, zeros, bias, *fill, out, *fill, workspace,
                   Counters(how.grid[0] * how.grid[1]), tokens, rows, 0, 0, width, group_size,
                   groups, how.columns),
                  defines={**types_of(x, bias, out), **how.defines, "BITS": bits,
                           "ZEROS": int(zeros is not None), "GATED": 0})


@kernels.implements("quantized_linear", name="quantized_tiled", supports=many, dtypes=_DTYPES,
                    workspace=lambda call: simt_tiles(call).workspace)
def quantized_tiled(x, codes, scales, zeros, bias, out, *, bits, group_size, workspace):
    return simt(x, (codes, scales, zeros), bias, out, (group_size, scales.shape[1]), workspace,
                _matrix_defines(x, bias, out, bits, group_size))
