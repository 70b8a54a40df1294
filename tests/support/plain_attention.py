"""Computes attention in plain loops, with faults that a test can switch on."""

import numpy as np


def attention(q, cache, cache_scales, block_table, query_starts, seq_lens, out, *, scale,
              extra_key=0, wrong_head=False):
    """Bind a plain kernel with two switches; with both off it is correct (see the control
    below)."""
    kv_heads = cache.shape[3]

    def launch():
        out[:] = 0
        for s, length in enumerate(seq_lens):
            slots = np.arange(length)
            blocks = block_table[s, slots // cache.shape[2]]
            k, v = cache[:, blocks, slots % cache.shape[2]].astype(np.float32)
            if cache_scales is not None:
                both = cache_scales[:, blocks, slots % cache.shape[2]][..., None]
                k, v = k * both[0], v * both[1]
            first = length - (query_starts[s + 1] - query_starts[s])
            for i, t in enumerate(range(query_starts[s], query_starts[s + 1] if length else 0)):
                seen = max(1, first + i + 1 + extra_key)
                for h in range(q.shape[1]):
                    kv = h % kv_heads if wrong_head else h // (q.shape[1] // kv_heads)
                    p = np.exp((score := k[:seen, kv] @ q[t, h] * scale) - score.max())
                    out[t, h] = p / p.sum() @ v[:seen, kv]
    return launch
