"""argmax and sample: pick the next token. The arithmetic of `sample` runs in float64 on one row: it
is cheap, and the sampled token is then the reference's."""

import numpy as np

from cpu_numpy.kernels.declare import ROWS, kernels


@kernels.implements("argmax", dtypes={"A": "f32 f16 bf16"}, family=ROWS)
def argmax(logits, out):
    if logits.dtype == np.float32:
        def launch():
            out[:] = logits.argmax(axis=-1)
        return launch

    def widened():
        out[:] = logits.astype(np.float32).argmax(axis=-1)
    return widened


@kernels.implements("sample", dtypes={"A": "f32 f16 bf16"}, family=ROWS)
def sample(logits, temperature, top_k, top_p, min_p, penalty, seeds, positions, seen, out):
    def launch():
        for s in range(len(out)):
            plain = temperature[s] == 0 and seen is None
            row = logits[s].astype(np.float32 if plain else np.float64, copy=not plain)
            if seen is not None:
                repeated = np.flatnonzero(seen[s])
                old = row[repeated]
                row[repeated] = np.where(old > 0, old / penalty[s], old * penalty[s])
            if temperature[s] != 0:
                row /= temperature[s]
            if temperature[s] == 0 or not np.isfinite(row.max()):  # NaN is the largest
                out[s] = row.argmax()
            else:
                out[s] = _pick(row, int(top_k[s]), float(top_p[s]), float(min_p[s]),
                               _uniform(seeds[s], int(positions[s])))
            if seen is not None:
                seen[s, out[s]] = 1
    return launch


def _pick(row, top_k, top_p, min_p, u):
    keep = np.arange(len(row))
    if 0 < top_k < len(row):
        keep = np.flatnonzero(row >= np.partition(row, -top_k)[-top_k])
    p = np.exp(row[keep] - row.max())
    p /= p.sum()
    if top_p < 1:
        likely = _likely(p, top_p)
        keep, p = keep[likely], p[likely]
    if min_p > 0:
        chosen = p >= min_p * p.max()
        keep, p = keep[chosen], p[chosen]
    if not len(p):  # a min_p above 1
        return row.argmax()
    running = np.cumsum(p)
    return keep[np.searchsorted(running, u * running[-1], side="right")]


def _likely(p, top_p):
    """Return, by index, the tokens for which all likelier ones together have less than top_p. Sorts
    the few likeliest first, since a whole vocabulary takes milliseconds; their sums are the
    same."""
    few = 256
    while True:
        among = (np.flatnonzero(p >= np.partition(p, -few)[-few]) if few < len(p)
                 else np.arange(len(p)))
        order = among[np.argsort(-p[among], kind="stable")]
        count = 1 + np.searchsorted(np.cumsum(p[order]), top_p)
        if count <= len(order) or few >= len(p):
            return np.sort(order[:count])
        few *= 16


_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_MASK = 0xFFFFFFFF


def _uniform(seed, counter):
    """Return a number in [0, 1) from Philox4x32-10 (Salmon et al. 2011): 24 bits of the first
    word."""
    k0, k1 = int(seed[0]) & _MASK, int(seed[1]) & _MASK
    a, b, c, d = counter & _MASK, 0, 0, 0
    for _ in range(10):
        low, high = _M0 * a, _M1 * c
        a, b, c, d = (high >> 32) ^ b ^ k0, high & _MASK, (low >> 32) ^ d ^ k1, low & _MASK
        k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    return (a >> 8) * 2.0**-24
