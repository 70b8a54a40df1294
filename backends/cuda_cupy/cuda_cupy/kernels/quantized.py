"""Products with quantised weights: streamed rows for one token, warps for few, tiles for many."""

from core.backend import Call
from cuda_cupy import shapes
from cuda_cupy.kernels.declare import FLOATS, kernels
from cuda_cupy.kernels.linear import FEW, token_bucket
from cuda_cupy.launch import c_type, launch, sequence

_DTYPES = {"A": FLOATS, "Q": "i8 i4x2", "B": FLOATS, "O": FLOATS}
_SOME = 64  # rows of float32 up to which some products of a few are faster than a tile
_LARGEST = 200 * 1024  # bytes of x as float32 in shared memory


def _kinds(x, bias, out):
    return {"A": c_type(x), "B": c_type(x if bias is None else bias), "O": c_type(out)}


def one_row(call: Call) -> str | None:
    """Why qstream.cuh does not take a call, or None."""
    piece, width = (16 if call.attrs["bits"] == 8 else 32), call.dims["K"]
    if call.dims["T"] != 1:
        return f"takes one row of x, got {call.dims['T']}"
    if width % piece or call.attrs["group_size"] % piece or width < 256:
        return (f"takes rows of 256 or more and groups, both multiples of {piece}; got {width} in "
                f"groups of {call.attrs['group_size']}")
    return None if 4 * width <= _LARGEST else f"takes up to {_LARGEST // 4} columns, got {width}"


def stream_defines(x, bits, width, group_size, zeros, how):
    """(defines of qstream.cuh, bytes of x in shared memory)."""
    lap = 32 * (16 if bits == 8 else 32)  # codes that a warp loads at a time
    return ({"A": c_type(x), "BITS": bits, "K": width, "GROUP": group_size,
             "ZEROS": int(zeros is not None), "ROWS": how.rows, "KSPLIT": how.split,
             "WARPS": how.warps, "MAX_DEPTH": how.depth},
            -(-width // lap) * lap * 4)


def stream(x, matrices, bits, group_size):
    """Up to three products with one row of x, in one launch; (codes, scales, zeros, bias, out)."""
    rows = sum(m[0].shape[0] for m in matrices)
    how = shapes.spread_codes(rows, matrices[0][0].shape[1])
    _, _, zeros, bias, out = matrices[0]
    defines, shared = stream_defines(x, bits, x.shape[1], group_size, zeros, how)
    arguments = [a for m in matrices for a in (*m, m[0].shape[0])]
    arguments += (3 - len(matrices)) * [None, None, None, None, None, 0]
    return launch("qgemv.cu", "qgemv", (-(-rows // how.rows_a_block),), 32 * how.warps,
                  (x, *arguments), defines={**_kinds(x, bias, out), **defines}, shared=shared)


@kernels.implements("quantized_linear", name="quantized_one", dtypes=_DTYPES, supports=one_row,
                    priority=2)
def quantized_one(x, codes, scales, zeros, bias, out, *, bits, group_size):
    return stream(x, [(codes, scales, zeros, bias, out)], bits, group_size)


def _few(call: Call) -> str | None:
    return None if call.dims["T"] <= FEW else f"takes up to {FEW} rows of x, got {call.dims['T']}"


@kernels.implements("quantized_linear", name="quantized_few", dtypes=_DTYPES, supports=_few,
                    priority=1)
def quantized_few(x, codes, scales, zeros, bias, out, *, bits, group_size):
    (tokens, width), (columns, groups) = x.shape, scales.shape
    return launch("qrows.cu", "qrows", (-(-columns // 8) if tokens else 0,), 256,
                  (x, codes, scales, zeros, bias, out, tokens, columns, width, group_size, groups),
                  defines={**_kinds(x, bias, out), "BITS": bits, "TOKENS": token_bucket(tokens)})


def _some(call: Call) -> str | None:
    return None if FEW < call.dims["T"] <= _SOME else (
        f"takes {FEW + 1} to {_SOME} rows of x, got {call.dims['T']}")


@kernels.implements("quantized_linear", name="quantized_chunks", supports=_some, priority=1,
                    dtypes={**_DTYPES, "A": "f32"})
def quantized_chunks(x, codes, scales, zeros, bias, out, *, bits, group_size):
    return sequence(*(quantized_few(x[i:i + FEW], codes, scales, zeros, bias, out[i:i + FEW],
                                    bits=bits, group_size=group_size)
                      for i in range(0, len(x), FEW)))


def _tensor_cores(call: Call) -> str | None:
    d, group = call.dims, call.attrs["group_size"]
    if d["T"] <= FEW:
        return f"takes over {FEW} rows of x, got {d['T']}"
    return None if d["K"] % 16 == 0 and group % 16 == 0 else (
        f"takes rows and groups that are multiples of 16, got {d['K']} in groups of {group}")


@kernels.implements("quantized_linear", name="quantized_tensor_cores", supports=_tensor_cores,
                    priority=1, dtypes={**_DTYPES, "A": "f16 bf16"})
def quantized_tensor_cores(x, codes, scales, zeros, bias, out, *, bits, group_size):
    (tokens, width), (columns, groups) = x.shape, scales.shape
    return launch("qtiled.cu", "qtiled", (-(-columns // 64), -(-tokens // 128)), 256,
                  (x, codes, scales, zeros, bias, out, tokens, columns, width, group_size, groups),
                  defines={**_kinds(x, bias, out), "BITS": bits, "ZEROS": int(zeros is not None),
                           "BF16": int(c_type(x) == "bf16")})


@kernels.implements("quantized_linear", name="quantized_tiled", dtypes=_DTYPES)
def quantized_tiled(x, codes, scales, zeros, bias, out, *, bits, group_size):
    (tokens, width), (columns, groups) = x.shape, scales.shape
    return launch("tiled.cu", "tiled", (-(-columns // 64), -(-tokens // 64)), 256,
                  (x, codes, scales, zeros, bias, out, tokens, columns, width, group_size, groups),
                  defines={**_kinds(x, bias, out), "BITS": bits})
