"""How many threads a kernel uses, decided when it binds."""

import numba
import numpy as np

_RUN = 1 << 20  # bytes; with a quarter of that, products took up to 1.1 times as long
_LITTLE = 1 << 16  # multiplications that take less time than another thread takes to begin


def alone(multiplications):
    """Whether the calling thread is sooner done by itself."""
    return multiplications < _LITTLE


def sharing(multiplications, pieces, nbytes):
    """(how many threads share a product, the counter of the pieces that they have claimed, how many
    they claim at once): enough that memory is read in long runs, and an eighth of two threads' work
    at most."""
    threads = 1 if alone(multiplications) else numba.get_num_threads()
    most = max(1, pieces // (4 * threads))
    return threads, np.zeros(1, np.int64), min(most, max(1, _RUN * pieces // max(1, nbytes)))
