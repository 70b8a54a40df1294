"""Makes right kernels of three ops in which one thing can be put wrong."""

import ctypes
import threading
import time

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
              after=lambda cache, blocks: None, spoil=lambda rows, length, blocks, many: None):
    """Make an attention over f32 caches.

    misses  of the keys seen, how many of the newest are left out
    heads   the key/value head of a query head
    size    how many elements of a head the scores are summed over
    after   is called with the cache and a sequence's blocks
    spoil   is called with a sequence's rows of the output, its length, its blocks, and whether the
            step has several sequences
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
                    used_blocks = block_table[s, :-(-length // block)]
                    spoil(out[start:stop], length, used_blocks, len(seq_lens) > 1)
                    after(cache, used_blocks)
        return launch
    return bind


def halve_before(cache, rows, slots):
    """Scale the row before the first that was stored."""
    if len(slots) and slots[0] > 0:
        rows[:, slots[0] - 1] *= np.float32(0.5)


def next_block(cache, rows, slots):
    """Write a row of the block behind: another sequence's, where there is one."""
    place = (slots[0] + cache.shape[2]) % rows.shape[1] if len(slots) else -1
    if place >= 0 and place not in slots:
        rows[:, place] = 1


def write_cache(after):
    """Make a right kv_cache_write that calls `after(cache, rows, slots)`; `rows` are the cache's by
    slot."""
    def bind(k, v, cache, cache_scales, slots):
        rows = cache.reshape(2, -1, *k.shape[1:])

        def launch():
            for t, slot in enumerate(slots):
                if slot >= 0:
                    rows[0, slot], rows[1, slot] = k[t], v[t]
            after(cache, rows, slots)
        return launch
    return bind


def beyond(array, nbytes, far=0):
    """Write bytes beyond an array's end, the first one `far` bytes from it."""
    ctypes.memset(array.ctypes.data + array.nbytes + far, 0x41, nbytes)


def overflow(nbytes, before=False, far=0):
    """Write bytes beyond the end of `out`, or before its beginning."""
    def after(x, weight, out):
        if before:
            ctypes.memset(out.ctypes.data - nbytes, 0x41, nbytes)
        else:
            beyond(out, nbytes, far)
    return after


def memo(key):
    """Make a rms_norm that keeps its first result for each `key(bind's number, out)`."""
    right = norm()

    def bind(x, weight, out, *, eps):
        run, number = right(x, weight, out, eps=eps), count("binds")

        def launch():
            run()
            np.copyto(out, kept.setdefault(("memo", key(number, out)), out.copy()))
        return launch
    return bind


def late(x, weight, out, *, eps):
    """Bind a rms_norm whose last row another thread writes after the launch has returned."""
    run = norm()(x[:-1], weight, out[:-1], eps=eps) if len(out) > 1 else lambda: None
    last = norm()(x[-1:], weight, out[-1:], eps=eps)

    def slow():
        time.sleep(0.05)
        last()

    def launch():
        run()
        threading.Thread(target=slow).start()
    return launch


def repack(call, packed, weight):
    """Prepack a linear's weight as it is."""
    np.copyto(packed["weight"], weight)


def spoil_pack(x, weight, bias, out):
    """Bind a linear that changes its prepacked weight after each use."""
    run = linear(x, weight, bias, out)

    def launch():
        run()
        weight[-1, -1] += np.float32(0.5)
    return launch


def raising(error):
    """Make a function that raises, whatever it is called with."""
    def function(*args, **more):
        raise error
    return function


def crash():
    ctypes.string_at(0)


def endless(*args, **more):
    spin()


def spin():
    while True:
        pass
