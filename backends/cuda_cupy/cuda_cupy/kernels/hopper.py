"""Binds attention and products of many rows, 16-bit, on Hopper's tensor cores (wgmma) and copy
engine."""

from core import Call, cuda
from cuda_cupy.device import device
from cuda_cupy.kernels.attention import ANY
from cuda_cupy.kernels.declare import kernels
from cuda_cupy.kernels.linear import three
from cuda_cupy.kernels.products import declare_products
from cuda_cupy.launch import c_type, launch
from cuda_cupy.tensor_map import tensor_map

_HOPPER = 90         # compute capability times 10; later GPUs have other instructions
_SHARED = 227 * 1024  # bytes that a block may have
_ROWS = 128          # of x, in a tile of products_hopper.cu
STAGE = 64           # columns of x and W in a stage: rows of 128 bytes
_TILE = 128          # positions in a tile of attention_hopper.cu


def _arch() -> str | None:
    found = device().arch
    return (None if found == _HOPPER else
            f"needs wgmma, of compute capability 9.0; this GPU has {found / 10}")


def _attends(call: Call) -> str | None:
    d = call.dims
    if d["T"] < 64 * max(1, d["S"]):
        return f"takes 64 queries a sequence or more on average, got {d['T']} for {d['S']}"
    return attends(call)


def attends(call: Call) -> str | None:
    """Refuse what attention_hopper.cu does not take."""
    d = call.dims
    if d["d"] not in (64, 128):
        return f"takes head sizes 64 and 128, got {d['d']}"
    if d["BS"] % 8 or _TILE % d["BS"]:
        return f"takes cache blocks of 8, 16, 32, 64 or 128 tokens, got {d['BS']}"
    if call.attrs["scale"] <= 0:
        return f"takes a scale above 0, got {call.attrs['scale']}"
    if call.dtypes["A"] != call.dtypes["C"]:
        return f"takes a cache of the activations' dtype, got {call.dtypes['C']}"
    return _arch()


@kernels.implements("attention", name="attention_hopper", supports=_attends, priority=3,
                    dtypes={"A": "f16 bf16", "C": "f16 bf16"})
def attention_hopper(q, cache, cache_scales, block_table, query_starts, seq_lens, out, *, scale):
    return attend(1, len(block_table), q, cache, block_table, query_starts, seq_lens, out, scale)


def attend(least, extra, q, cache, block_table, query_starts, seq_lens, out, scale):
    """Launch attention_hopper.cu for sequences of `least` queries or more, which have `extra` tiles
    at most beside those that are full."""
    (tokens, heads, size), (sequences, width) = q.shape, block_table.shape
    block, kv_heads = cache.shape[2], cache.shape[3]
    slots = cache.shape[1] * block  # of keys; values follow
    # float32 sums of a warpgroup: scores, outputs and weights of 64 queries
    groups, registers, idle = (3, 160, 32) if size == 64 else (2, 240, 24)
    queries, side = groups * 64 * size * 2, _TILE * size * 2
    barriers = 128
    stages = min(4, (_SHARED - queries - barriers) // (2 * side))
    pairs = tensor_map(cache.data.ptr, (size, kv_heads, 2 * slots), (STAGE, 1, block))
    return launch("attention_hopper.cu", "attention_hopper",
                  (heads, cuda.cover(tokens, groups * 64) + extra if tokens else 0),
                  (groups + 1) * 128,
                  (pairs, q, block_table, query_starts, seq_lens, out, sequences, width, heads,
                   kv_heads, slots, scale), shared=queries + 2 * stages * side + barriers,
                  defines={"A": c_type(q), "C": c_type(q), "SIZE": size, "BLOCK": block,
                           "BF16": int(c_type(q) == "bf16"), "GROUPS": groups, "STAGES": stages,
                           "REGISTERS": registers, "IDLE_REGISTERS": idle, "QUANTIZED": 0,
                           "LEAST": least, "MOST": ANY})


def weight_rows(call: Call) -> list[int]:
    """List the rows of each weight of a product."""
    return [call.dims[n] for n in ("N", "N1", "N2", "N3") if n in call.dims]


def operands(maps, biases, outs, tokens, width, rows):
    """List the arguments with which both kernels for products begin: those of up to three weights,
    where there are fewer repeated or null."""
    return (maps[0], *three(maps[1:], maps[1]), *three(biases), *three(outs), tokens, width,
            *three(rows, 0))


def hopper_products(call: Call) -> str | None:
    a, w, d = call.dtypes["A"], call.dtypes["W"], call.dims
    if a != w:
        return f"takes weights of x's dtype, got {w} for {a}"
    rows = weight_rows(call)
    if d["K"] % 8 or any(n % 8 for n in rows):
        return (f"takes rows of 16-byte pieces, of x, W and out: multiples of 8; got "
                f"K {d['K']}, N {', '.join(map(str, rows))}")
    return _arch()


def _multiplies(call: Call) -> str | None:
    if call.dims["T"] < 64:
        return f"takes 64 rows of x or more, got {call.dims['T']}"
    return hopper_products(call)


def _products(x, weights, biases, outs, *, gated):
    tokens, width = x.shape
    rows = [w.shape[0] for w in weights]
    across = cuda.cover(tokens, _ROWS)
    processors = device().multiprocessors

    def tiles(columns):
        outputs = columns // 2 if gated else columns
        return across * sum(cuda.cover(n, outputs) for n in rows[:1 if gated else 3])

    def waves(columns):  # in units of 128 columns
        return cuda.cover(tiles(columns), processors) * columns // 128
    columns = 256 if gated or waves(256) <= waves(128) else 128
    stages = 4 if columns == 256 else 6
    maps = [tensor_map(a.data.ptr, (width, len(a)), (STAGE, 128)) for a in (x, *weights)]
    kinds = {"A": c_type(x), "O": c_type(outs[0])}
    return launch("products_hopper.cu", "products_hopper", (min(processors, tiles(columns)),), 384,
                  (*operands(maps, biases, outs, tokens, width, rows), tiles(columns)),
                  shared=stages * (_ROWS + columns) * STAGE * 2 + 128,
                  defines={**kinds, "WIDE": int(kinds["O"] == "float"), "COLUMNS": columns,
                           "STAGES": stages, "GATED": int(gated),
                           "BF16": int(kinds["A"] == "bf16")})


# on an H200, with 512 to 2,048 rows, cuBLAS is up to 20% faster where nothing follows the products,
# and 25% slower where swiglu does
declare_products("hopper", _multiplies, _products, priority=-1, gated_priority=1)
