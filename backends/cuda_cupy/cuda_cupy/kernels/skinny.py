"""Binds products of few rows of x, 16-bit, that stream the weights through tensor cores."""

from core import Call, cuda
from cuda_cupy.device import device
from cuda_cupy.kernels.linear import FEW, three
from cuda_cupy.kernels.products import declare_products
from cuda_cupy.launch import c_type, launch

_CHUNK = 32             # columns that the lanes of a row take at once, as in skinny.cu
_LONG, _LONGEST = 4096, 8192  # columns from which 16 warps share a row, and the most
_DEPTH = 8              # tiles of columns that are on their way: as many as registers hold


def few_rows(call: Call) -> str | None:
    """Say why skinny.cu does not take a call; None if it does."""
    a, w, d = call.dtypes["A"], call.dtypes["W"], call.dims
    if a != w:
        return f"takes weights of x's dtype, got {w} for {a}"
    if not 2 <= d["T"] <= FEW:
        return f"takes 2 to {FEW} rows of x, got {d['T']}"
    if d["K"] % _CHUNK or d["K"] > _LONGEST:
        return f"takes up to {_LONGEST} columns, a multiple of {_CHUNK}; got {d['K']}"
    return None


def _skinny(x, weights, biases, outs, gated):
    tokens, width = x.shape
    half = 8 if gated else 16
    rows = [w.shape[0] for w in (weights[:1] if gated else weights)]
    columns = cuda.cover(tokens, 8)
    # two tiles a block read x half as often; with few of them some multiprocessors would have none,
    # and registers do not hold two with two columns
    tiles = 2 if columns == 1 and sum(rows) // half >= 8 * device().multiprocessors else 1
    split = 16 if width > _LONG else 8  # of the columns alone
    blocks = sum(cuda.cover(n, tiles * half) for n in rows)
    return launch("skinny.cu", "skinny", (blocks,), 32 * split,
                  (x, *three(weights), *three(biases), *three(outs), tokens, *three(rows, 0)),
                  defines={"A": c_type(x), "O": c_type(outs[0]), "K": width, "SPLIT": split,
                           "TILES": tiles, "COLUMNS": columns,
                           "DEPTH": _DEPTH // tiles, "GATED": int(gated),
                           "BF16": int(c_type(x) == "bf16")})


declare_products("skinny", few_rows, _skinny, priority=2, gated_priority=2)
