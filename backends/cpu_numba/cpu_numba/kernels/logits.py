"""Binds adjust_logits and log_probs, and pick_ids and put_tokens, which hand tokens on."""

import numpy as np

from cpu_numba.compiling import bound
from cpu_numba.kernels.compiled import logits as compiled
from cpu_numba.kernels.declare import DOT, FLOATS, kernels
from cpu_numba.kernels.flat import flat

_MANY = 1 << 15  # logits of several rows from which all threads are worth waking


def _several(logits):
    return len(logits) > 1 and logits.size >= _MANY


@kernels.implements("adjust_logits", dtypes={"A": FLOATS}, family=DOT)
def adjust_logits(logits, starts, ids, penalties, add, mask, out):
    words = np.empty(0, np.int32) if mask is None else flat(mask)
    adjust = compiled.adjust_many if _several(logits) else compiled.adjust
    return bound(adjust, flat(logits), starts, ids, penalties, add, words, flat(out),
                 *logits.shape)


@kernels.implements("log_probs", dtypes={"A": FLOATS}, family=DOT)
def log_probs(logits, token, chosen, rank, top_ids, top, *, n):
    compute = compiled.log_probs_many if _several(logits) else compiled.log_probs
    return bound(compute, flat(logits), token, chosen, rank, flat(top_ids), flat(top),
                 *logits.shape, n)


@kernels.implements("pick_ids", dtypes={}, family=DOT)
def pick_ids(given, last, ids):
    return bound(compiled.pick_ids, given, last, ids)


@kernels.implements("put_tokens", dtypes={}, family=DOT)
def put_tokens(token, places, last):
    return bound(compiled.put_tokens, token, places, last)
