"""Binds products with quantised weights: streamed rows for one token, tiles on tensor cores for
more. Rows or groups that do not fit those go to kernels that read one code at a time."""

from core import Call
from cuda_cupy import shapes
from cuda_cupy.kernels.declare import FLOATS, kernels
from cuda_cupy.kernels.linear import few, token_bucket
from cuda_cupy.launch import c_type, launch

_DTYPES = {"A": FLOATS, "Q": "i8 i4x2", "B": FLOATS, "O": FLOATS}
_NARROW = 600  # blocks up to which narrow tiles were faster than large ones
LARGEST = 200 * 1024  # bytes of x as float32 in shared memory


def kinds_of(x, bias, out):
    return {"A": c_type(x), "B": c_type(x if bias is None else bias), "O": c_type(out)}


def one_row(call: Call) -> str | None:
    """Say why qstream.cuh does not take a call; None if it does."""
    piece, width = (16 if call.attrs["bits"] == 8 else 32), call.dims["K"]
    if call.dims["T"] != 1:
        return f"takes one row of x, got {call.dims['T']}"
    if width % piece or call.attrs["group_size"] % piece or width < 256:
        return (f"takes rows of 256 or more and groups, both multiples of {piece}; got {width} in "
                f"groups of {call.attrs['group_size']}")
    return None if 4 * width <= LARGEST else f"takes up to {LARGEST // 4} columns, got {width}"


def stream_defines(x, bits, width, group_size, zeros, how):
    """Return (defines of qstream.cuh, bytes of x in shared memory)."""
    lap = 32 * (16 if bits == 8 else 32)  # codes that a warp loads at a time
    return ({"A": c_type(x), "BITS": bits, "K": width, "GROUP": group_size,
             "ZEROS": int(zeros is not None), "ROWS": how.rows, "KSPLIT": how.split,
             "WARPS": how.warps, "MAX_DEPTH": how.depth},
            -(-width // lap) * lap * 4)


def stream(x, matrices, bits, group_size):
    """Launch up to three products with one row of x at once; (codes, scales, zeros, bias, out)."""
    rows = sum(m[0].shape[0] for m in matrices)
    how = shapes.spread_codes(rows, matrices[0][0].shape[1])
    _, _, zeros, bias, out = matrices[0]
    defines, shared = stream_defines(x, bits, x.shape[1], group_size, zeros, how)
    arguments = [a for m in matrices for a in (*m, m[0].shape[0])]
    arguments += (3 - len(matrices)) * [None, None, None, None, None, 0]
    return launch("qgemv.cu", "qgemv", (-(-rows // how.rows_a_block),), 32 * how.warps,
                  (x, *arguments), defines={**kinds_of(x, bias, out), **defines}, shared=shared)


@kernels.implements("quantized_linear", name="quantized_one", dtypes=_DTYPES, supports=one_row,
                    priority=2)
def quantized_one(x, codes, scales, zeros, bias, out, *, bits, group_size):
    return stream(x, [(codes, scales, zeros, bias, out)], bits, group_size)


def _tensor_cores(call: Call) -> str | None:
    d, group = call.dims, call.attrs["group_size"]
    if d["T"] < 2:
        return f"takes two rows of x or more, got {d['T']}"
    return None if d["K"] % 16 == 0 and group % 16 == 0 else (
        f"takes rows and groups that are multiples of 16, got {d['K']} in groups of {group}")


def tile(tokens, columns, itemsize):
    """Choose (tokens, columns, columns of K) of a block's tile of qtiled.cu."""
    if tokens <= 16 or -(-tokens // 16) * -(-columns // 32) <= _NARROW:
        return 16, 32, 128
    return 64 if itemsize == 4 else 128, 64, 64


@kernels.implements("quantized_linear", name="quantized_tensor_cores", supports=_tensor_cores,
                    priority=2, dtypes=_DTYPES)
def quantized_tensor_cores(x, codes, scales, zeros, bias, out, *, bits, group_size):
    (tokens, width), (columns, groups) = x.shape, scales.shape
    high, wide, deep = tile(tokens, columns, x.itemsize)
    return launch("qtiled.cu", "qtiled", (-(-columns // wide), -(-tokens // high)), 256,
                  (x, codes, scales, zeros, bias, out, tokens, columns, width, group_size, groups),
                  defines={**kinds_of(x, bias, out), "BITS": bits, "ZEROS": int(zeros is not None),
                           "BF16": int(c_type(x) != "f16"), "ROWS": high, "DEEP": deep,
                           "BLOCKED": 0})


@kernels.implements("quantized_linear", name="quantized_few", dtypes=_DTYPES, supports=few,
                    priority=1)
def quantized_few(x, codes, scales, zeros, bias, out, *, bits, group_size):
    (tokens, width), (columns, groups) = x.shape, scales.shape
    return launch("qrows.cu", "qrows", (-(-columns // 8) if tokens else 0,), 256,
                  (x, codes, scales, zeros, bias, out, tokens, columns, width, group_size, groups),
                  defines={**kinds_of(x, bias, out), "BITS": bits, "TOKENS": token_bucket(tokens)})


@kernels.implements("quantized_linear", name="quantized_tiled", dtypes=_DTYPES)
def quantized_tiled(x, codes, scales, zeros, bias, out, *, bits, group_size):
    (tokens, width), (columns, groups) = x.shape, scales.shape
    return launch("tiled.cu", "tiled", (-(-columns // 64), -(-tokens // 64)), 256,
                  (x, codes, scales, zeros, bias, out, tokens, columns, width, group_size, groups),
                  defines={**kinds_of(x, bias, out), "BITS": bits})
