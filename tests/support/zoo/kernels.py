"""Makes right kernels of three ops in which one thing can be put wrong."""

import ctypes

import numpy as np

#: what a kernel keeps from call to call; a tool begins with none of it
kept = {}


def count(name="calls"):
    """Return how often this was called since the tool began."""
    kept[name] = kept.get(name, 0) + 1
    return kept[name]


def norm(after=lambda x, weight, out: None, before=lambda: None, first=False):
    """Make a rms_norm that calls `before()`, computes, and calls `after(x, weight, out)`.

    first  use the weight of the first call that was ever bound
    """
    def bind(x, weight, out, *, eps):
        used = kept.setdefault("weight", weight) if first else weight

        def launch():
            before()
            scale = np.float32(1) / np.sqrt(np.mean(x * x, -1, keepdims=True) + np.float32(eps))
            np.multiply(x * scale, used, out=out)
            if len(out):
                after(x, weight, out)
        return launch
    return bind


def with_scratch(after):
    """Make a rms_norm with a workspace: `after(workspace, out)` follows."""
    right = norm()

    def bind(x, weight, out, *, eps, workspace):
        run = right(x, weight, out, eps=eps)

        def launch():
            run()
            if len(out):
                after(workspace, out)
        return launch
    return bind


def linear(x, weight, bias, out):
    """Bind a right linear; the prepacked ones of the zoo never come so far."""
    def launch():
        np.matmul(x, weight.T, out=out)
        if bias is not None:
            np.add(out, bias, out=out)
    return launch


def attention(misses=lambda seen: 0, heads=lambda h, group: h // group, size=lambda d: d,
              after=lambda cache, blocks: None):
    """Make an attention over f32 caches.

    misses  of the keys seen, how many of the newest are left out
    heads   the key/value head of a query head
    size    how many elements of a head the scores are summed over
    after   is called with the cache and a sequence's blocks
    """
    def bind(q, cache, cache_scales, block_table, query_starts, seq_lens, out, *, scale):
        group, block, d = q.shape[1] // cache.shape[3], cache.shape[2], q.shape[2]
        own = [min(heads(h, group), cache.shape[3] - 1) for h in range(q.shape[1])]
        used = size(d)

        def launch():
            out[...] = 0
            for s, length in enumerate(seq_lens):
                place = np.arange(length)
                kv = cache[:, block_table[s, place // block], place % block][:, :, own]
                start, stop = query_starts[s:s + 2]
                for t in range(start, stop if length else start):
                    seen = length - (stop - t) + 1
                    seen = max(1, seen - misses(seen))
                    score = np.einsum("hd,lhd->hl", q[t, :, :used], kv[0, :seen, :, :used]) * scale
                    weight = np.exp(score - score.max(-1, keepdims=True))
                    weight /= weight.sum(-1, keepdims=True)
                    out[t] = np.einsum("hl,lhd->hd", weight, kv[1, :seen])
                if length:
                    after(cache, block_table[s])
        return launch
    return bind


def write_before(k, v, cache, cache_scales, slots):
    """Bind a kv_cache_write that scales the row before the one that it stores."""
    flat = cache.reshape(2, -1, *k.shape[1:])

    def launch():
        for t, slot in enumerate(slots):
            if slot >= 0:
                flat[0, slot], flat[1, slot] = k[t], v[t]
            if slot > 0 and t == 0:
                flat[:, slot - 1] *= np.float32(0.5)
    return launch


def overflow(nbytes, before=False):
    """Write bytes beyond the end of `out`, or before its beginning."""
    def after(x, weight, out):
        start = out.ctypes.data - nbytes if before else out.ctypes.data + out.nbytes
        ctypes.memset(start, 0x41, nbytes)
    return after


def raising(error):
    """Make a function that raises, whatever it is called with."""
    def function(*args, **more):
        raise error
    return function


def crash():
    ctypes.string_at(0)


def spin():
    while True:
        pass
