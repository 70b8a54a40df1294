"""Decides how many threads a kernel uses and how they divide its work, when it binds."""

import numba
import numpy as np

from cpu_numba.kernels.compiled.work_queue import Shared

_LONG = 1 << 20  # bytes; with a quarter of that, products took up to 1.1 times as long
_SHORT = 1 << 16  # bytes for one token; near the end, so that threads end together
_LITTLE = 1 << 16  # multiplications that take less time than another thread takes to begin


def alone(multiplications):
    """Return whether the calling thread is sooner done by itself."""
    return multiplications < _LITTLE


def chunk(tokens, block, panels):
    """Return how many tokens a piece of work has, in whole blocks: all of them, unless there are
    more threads than panels of weights. Each piece packs its panel anew."""
    blocks = max(1, -(-tokens // block))
    chunks = min(blocks, -(-numba.get_num_threads() // max(1, panels)))
    return -(-blocks // chunks) * block


def sharing(tokens, multiplications, count, nbytes):
    """Divide `count` pieces of work, each with all tokens, that read `nbytes` and take so many
    multiplications a token: in long runs, then shorter ones, half of a thread's share of what is
    left (guided self-scheduling, Polychronopoulos and Kuck 1987)."""
    threads = 1 if alone(tokens * multiplications) else numba.get_num_threads()
    most, least = (max(1, size * count // max(1, nbytes))
                   for size in (_LONG, _SHORT // max(1, tokens)))
    starts = [0]
    while starts[-1] < count:
        left = count - starts[-1]
        starts.append(starts[-1] + min(left, most, max(least, left // (2 * threads))))
    return Shared(threads, np.zeros(1, np.int64), np.array(starts))
