"""Computes what surrounds the choice of a token: adjust_logits and log_probs."""

import numpy as np

from cpu_numpy.kernels.declare import ROWS, kernels


@kernels.implements("adjust_logits", dtypes={"A": "f32 f16 bf16"}, family=ROWS)
def adjust_logits(logits, starts, ids, penalties, add, mask, out):
    rows, width = logits.shape

    def launch():
        out[...] = logits
        mine = slice(starts[0], starts[-1])
        row, token = np.repeat(np.arange(rows), np.diff(starts)), ids[mine]
        inside = (token >= 0) & (token < width)
        at = row[inside], token[inside]
        x, penalty = logits[at].astype(np.float32), penalties[mine][inside]
        with np.errstate(all="ignore"):  # a penalty of 0, or Inf - Inf, is the caller's
            x = np.where(x > 0, x / penalty, x * penalty)
            out[at] = (x + add[mine][inside]).astype(out.dtype)
        if mask is not None:
            bits = np.unpackbits(mask.astype("<i4").view(np.uint8), axis=1, bitorder="little")
            out[bits[:, :width] == 0] = -np.inf
    return launch


@kernels.implements("log_probs", dtypes={"A": "f32 f16 bf16"}, family=ROWS)
def log_probs(logits, token, chosen, rank, top_ids, top, *, n):
    width = logits.shape[1]

    def launch():
        with np.errstate(all="ignore"):  # rows without probabilities give NaN
            for r, t in enumerate(token):
                row = logits[r].astype(np.float32)
                best = row.argmax()  # NaN is the largest
                shifted = row - row[best]
                terms = np.exp(shifted)
                terms[best] -= 1
                rest = np.log1p(terms.sum())
                top_ids[r] = _largest(row, n)
                top[r] = shifted[top_ids[r]] - rest
                inside = 0 <= t < width
                chosen[r] = shifted[t] - rest if inside else np.nan
                rank[r] = 1 + _larger(row, row[t]) if inside else 0
    return launch


def _larger(row, x):
    """Count the logits before x in the order of argmax, in which NaN is the largest."""
    return 0 if np.isnan(x) else len(row) - np.count_nonzero(row <= x)


def _largest(row, n):
    """Return the indices of the n largest logits, of equal ones the lower index first."""
    if n == 0:
        return []
    smallest = np.partition(row, -n)[-n]
    among = np.flatnonzero(~(row < smallest))  # NaN is among them
    order = np.argsort(-row[among], kind="stable")  # and comes last
    return among[np.roll(order, np.isnan(row).sum())[:n]]
