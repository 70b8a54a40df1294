"""Binds row-wise kernels: embedding, norms, rope, softmax, add, swiglu, cache writes,
advance, pick_ids, put_tokens."""

from core import cuda
from cuda_cupy.kernels.declare import FLOATS, kernels
from cuda_cupy.launch import c_type, launch

_THREADS = 256


@kernels.implements("embedding", dtypes={"W": FLOATS, "O": FLOATS}, batch_invariant=True)
def embedding(ids, table, out):
    return launch("elementwise.cu", "embedding", (out.shape[0],), _THREADS,
                  (ids, table, out, *table.shape), defines={"W": c_type(table), "O": c_type(out)})


def _elementwise(entry, first, second, out):
    return launch("elementwise.cu", entry, (cuda.cover(out.size, _THREADS),), _THREADS,
                  (first, second, out, out.size),
                  defines={"W": c_type(first), "O": c_type(out)})


@kernels.implements("add", dtypes={"A": FLOATS}, batch_invariant=True)
def add(a, b, out):
    return _elementwise("add", a, b, out)


@kernels.implements("swiglu", dtypes={"A": FLOATS}, batch_invariant=True)
def swiglu(gate, up, out):
    return _elementwise("swiglu", gate, up, out)


def fill_bias(bias, out):
    return launch("elementwise.cu", "fill_bias", (cuda.cover(out.size, _THREADS),), _THREADS,
                  (bias, out, out.size, out.shape[1]),
                  defines={"W": c_type(bias), "O": c_type(out)})


def add_bias(sums, bias, out):
    return launch("elementwise.cu", "add_bias", (cuda.cover(out.size, _THREADS),), _THREADS,
                  (sums, bias, out, out.size, out.shape[1]),
                  defines={"W": c_type(bias), "O": c_type(out)})


def _row_threads(width):
    """Take one thread for every four elements: a row's latency matters more than occupancy."""
    return min(1024, max(32, 32 * cuda.cover(width, 128)))


def _norm(entry, x, weight, arguments, eps):
    """Launch one block a row; rows of whole 16-byte chunks stay in registers."""
    rows, width = x.shape
    chunks, tail = divmod(width * x.itemsize, 16)
    mine = 0 if tail else cuda.cover(chunks, 1024)
    threads = 32 * cuda.cover(chunks, 32 * mine) if 0 < mine <= 8 else _row_threads(width)
    return launch("norm.cu", entry, (rows,), threads, (*arguments, width, eps),
                  defines={"A": c_type(x), "W": c_type(weight), "MINE": mine if mine <= 8 else 0})


@kernels.implements("rms_norm", dtypes={"A": FLOATS, "W": FLOATS}, batch_invariant=True)
def rms_norm(x, weight, out, *, eps):
    return _norm("rms_norm", x, weight, (x, weight, out), eps)


@kernels.implements("add_rms_norm", dtypes={"A": FLOATS, "W": FLOATS}, batch_invariant=True)
def add_rms_norm(a, b, weight, sum, out, *, eps):
    return _norm("add_rms_norm", a, weight, (a, b, weight, sum, out), eps)


@kernels.implements("softmax", dtypes={"A": FLOATS}, batch_invariant=True)
def softmax(x, out):
    return launch("softmax.cu", "softmax", (x.shape[0],), _row_threads(x.shape[1]),
                  (x, out, x.shape[1]), defines={"A": c_type(x)})


@kernels.implements("rope", dtypes={"A": FLOATS}, batch_invariant=True)
def rope(x, positions, inv_freq, out, *, interleaved):
    tokens, heads, size = x.shape
    return launch("rope.cu", "rope", (tokens,), min(1024, 32 * cuda.cover(heads * size // 2, 32)),
                  (x, positions, inv_freq, out, heads, size, int(interleaved)),
                  defines={"A": c_type(x)})


@kernels.implements("kv_cache_write", dtypes={"A": FLOATS, "C": f"{FLOATS} i8"},
                    batch_invariant=True)
def kv_cache_write(k, v, cache, cache_scales, slots):
    tokens, heads, size = k.shape
    warps = min(heads, 8)
    return launch("cache.cu", "kv_cache_write", (tokens, cuda.cover(heads, warps), 2), 32 * warps,
                  (k, v, cache, cache_scales, slots, heads, size, side_step(cache)),
                  defines=cache_defines(k, cache))


def side_step(cache):
    """Count the rows of one head between a key and its value."""
    return cuda.Long(cache.shape[1] * cache.shape[2] * cache.shape[3])


def cache_defines(x, cache):
    return {"A": c_type(x), "C": c_type(cache), "QUANTIZED": int(c_type(cache) == "i8")}


@kernels.implements("advance", dtypes={}, batch_invariant=True)
def advance(token, block_table, ids, positions, slots, seq_lens, *, block_size):
    sequences, width = block_table.shape
    return launch("step.cu", "advance", (cuda.cover(sequences, 128),), 128,
                  (token, block_table, ids, positions, slots, seq_lens, sequences, width,
                   block_size), defines={})


@kernels.implements("pick_ids", dtypes={}, batch_invariant=True)
def pick_ids(given, last, ids):
    return launch("step.cu", "pick_ids", (cuda.cover(given.size, 128),), 128,
                  (given, last, ids, given.size, last.size), defines={})


@kernels.implements("put_tokens", dtypes={}, batch_invariant=True)
def put_tokens(token, places, last):
    return launch("step.cu", "put_tokens", (cuda.cover(token.size, 128),), 128,
                  (token, places, last, token.size, last.size), defines={})
