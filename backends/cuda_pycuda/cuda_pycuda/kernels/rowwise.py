"""Binds row-wise kernels: embedding, norms, rope, softmax, add, swiglu, cache writes,
advance, pick_ids, put_tokens."""

from core import cuda
from cuda_pycuda.kernels.declare import FLOATS, kernels
from cuda_pycuda.launch import c_type, launch

_THREADS = 256


@kernels.implements("embedding", dtypes={"W": FLOATS, "O": FLOATS}, batch_invariant=True)
def embedding(ids, table, out):
    return launch("embedding.cu", "embedding", (out.shape[0],), _THREADS,
                  (ids, table, out, *table.shape), defines={"W": c_type(table), "O": c_type(out)})


def _elementwise(entry, first, second, out):
    return launch("elementwise.cu", entry, (cuda.cover(out.size, _THREADS),), _THREADS,
                  (first, second, out, out.size),
                  defines={"A": c_type(out), "S": c_type(first)})


@kernels.implements("add", dtypes={"A": FLOATS}, batch_invariant=True)
def add(a, b, out):
    return _elementwise("add", a, b, out)


@kernels.implements("swiglu", dtypes={"A": FLOATS}, batch_invariant=True)
def swiglu(gate, up, out):
    return _elementwise("swiglu", gate, up, out)


def _row_threads(width):
    """Take a thread an element, up to 1024."""
    return min(1024, max(32, 32 * cuda.cover(width, 32)))


def _norm(entry, x, weight, arguments, eps):
    rows, width = x.shape
    threads = _row_threads(width)
    return launch("rms_norm.cu", entry, (rows,), threads, (*arguments, width, eps),
                  defines={"A": c_type(x), "W": c_type(weight),
                           "KEEP": cuda.cover(width, threads)})


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
    return launch("rope.cu", "rope", (tokens, cuda.cover(heads * size // 2, _THREADS)), _THREADS,
                  (x, positions, inv_freq, out, heads, size, int(interleaved)),
                  defines={"A": c_type(x)})


@kernels.implements("kv_cache_write", dtypes={"A": FLOATS, "C": f"{FLOATS} i8"},
                    batch_invariant=True)
def kv_cache_write(k, v, cache, cache_scales, slots):
    tokens, heads, size = k.shape
    warps = min(heads, 8)
    return launch("kv_cache.cu", "kv_cache_write", (tokens, cuda.cover(heads, warps), 2),
                  32 * warps,
                  (k, v, cache, cache_scales, slots, heads, size, side(cache)),
                  defines=cache_defines(k, cache))


@kernels.implements("rope_kv_write", dtypes={"A": FLOATS, "C": FLOATS})
def rope_kv_write(q, k, v, positions, inv_freq, cache, slots, out, *, interleaved):
    (tokens, heads, size), kv_heads = q.shape, k.shape[1]
    pairs = (heads + 2 * kv_heads) * size // 2
    return launch("kv_cache.cu", "rope_kv_write", (tokens, cuda.cover(pairs, _THREADS)), _THREADS,
                  (q, k, v, positions, inv_freq, cache, slots, out, heads, kv_heads, size,
                   side(cache), int(interleaved)), defines=cache_defines(q, cache))


def side(cache):
    """Count the elements between a token's key and its value."""
    return cuda.Long(cache.size // 2)


def cache_defines(x, cache):
    return {"A": c_type(x), "C": c_type(cache), "CODES": int(c_type(cache) == "i8")}


@kernels.implements("advance", dtypes={}, batch_invariant=True)
def advance(token, block_table, ids, positions, slots, seq_lens, *, block_size):
    sequences, width = block_table.shape
    return launch("advance.cu", "advance", (cuda.cover(sequences, 128),), 128,
                  (token, block_table, ids, positions, slots, seq_lens, sequences, width,
                   block_size))


@kernels.implements("pick_ids", dtypes={}, batch_invariant=True)
def pick_ids(given, last, ids):
    return _tokens("pick_ids", given, last, ids, given.size, last.size)


@kernels.implements("put_tokens", dtypes={}, batch_invariant=True)
def put_tokens(token, places, last):
    return _tokens("put_tokens", token, places, last, token.size, last.size)


def _tokens(entry, *arguments):
    """Launch a thread a token; the number of tokens is the last argument but one."""
    return launch("advance.cu", entry, (cuda.cover(arguments[-2], 128),), 128, arguments)
