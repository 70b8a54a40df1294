"""Computes adjust_logits and log_probs by rows, pick_ids and put_tokens by tokens."""

import math

import numpy as np

from cpu_numba.kernels.compiled.exponential import exp
from cpu_numba.kernels.compiled.jit import njit
from cpu_numba.kernels.compiled.rows import convert_row
from cpu_numba.kernels.compiled.simd import get, load, put, splat, total
from cpu_numba.kernels.compiled.spread import on_threads

_STRETCH = 4096  # terms that float32 sums up; stretches are summed in float64


@njit(_nrt=False, error_model="numpy")
def adjust_row(r, logits, starts, ids, penalties, add, mask, out, size):
    start, words = r * size, (size + 31) // 32
    convert_row(logits, start, out, start, size)
    for e in range(starts[r], starts[r + 1]):
        if 0 <= ids[e] < size:
            x = get(logits, start + ids[e])
            x = x / penalties[e] if x > 0 else x * penalties[e]
            put(out, start + ids[e], x + add[e])
    if mask.size > 0:
        for w in range(words):
            bits = mask[r * words + w]
            if bits != -1:
                for i in range(32 * w, min(size, 32 * w + 32)):
                    if bits >> (i - 32 * w) & 1 == 0:
                        put(out, start + i, np.float32(-np.inf))


@njit
def adjust(logits, starts, ids, penalties, add, mask, out, rows, size):
    for r in range(rows):
        adjust_row(r, logits, starts, ids, penalties, add, mask, out, size)


@njit
def adjust_many(logits, starts, ids, penalties, add, mask, out, rows, size):
    on_threads(adjust_row, rows, False, (logits, starts, ids, penalties, add, mask, out, size))


@njit(_nrt=False)
def before(a, b):
    """Return whether a is larger, in the order of argmax: NaN is the largest."""
    return a > b or (a != a and b == b)


@njit(_nrt=False)
def terms(logits, start, size, best, peak):
    """Return the sum of exp(x - peak) over a row, without the term of index `best`."""
    everything = 0.0
    for first in range(0, size, _STRETCH):
        sums, rest = splat(np.float32(0)), np.float32(0)
        end = min(size, first + _STRETCH)
        for i in range(first, end, 16):
            if i + 16 <= end and not i <= best < i + 16:
                sums = sums + exp(load(logits, start + i) - splat(peak))
            else:
                for j in range(i, min(end, i + 16)):
                    if j != best:
                        rest += math.exp(get(logits, start + j) - peak)
        everything += total(sums) + rest
    return everything


@njit(_nrt=False)
def log_probs_row(r, logits, token, chosen, rank, top_ids, top, size, n):
    start, known = r * size, 0 <= token[r] < size
    mark = get(logits, start + token[r]) if known else np.float32(np.nan)
    larger, held, best = 0, 0, 0
    peak = get(logits, start)
    for i in range(size):
        x = get(logits, start + i)
        larger += before(x, mark)
        if before(x, peak):
            best, peak = i, x
        if held == n and (n == 0 or not before(x, top[r * n + n - 1])):
            continue
        at = r * n + min(held, n - 1)  # of equal ones the lower index came first
        while at > r * n and before(x, top[at - 1]):
            top_ids[at], top[at] = top_ids[at - 1], top[at - 1]
            at -= 1
        top_ids[at], top[at] = i, x
        held = min(held + 1, n)
    rest = np.float32(np.nan)  # where there are no probabilities
    if math.isfinite(peak):
        rest = np.float32(math.log1p(terms(logits, start, size, best, peak)))
    for at in range(r * n, r * n + n):
        top[at] = top[at] - peak - rest
    chosen[r] = mark - peak - rest
    rank[r] = 1 + larger if known else 0


@njit
def log_probs(logits, token, chosen, rank, top_ids, top, rows, size, n):
    for r in range(rows):
        log_probs_row(r, logits, token, chosen, rank, top_ids, top, size, n)


@njit
def log_probs_many(logits, token, chosen, rank, top_ids, top, rows, size, n):
    on_threads(log_probs_row, rows, False, (logits, token, chosen, rank, top_ids, top, size, n))


@njit
def pick_ids(given, last, ids):
    for t in range(given.size):
        place = -1 - given[t]
        ids[t] = given[t] if given[t] >= 0 else last[place] if place < last.size else 0


@njit
def put_tokens(token, places, last):
    for r in range(token.size):
        if 0 <= places[r] < last.size:
            last[places[r]] = token[r]
