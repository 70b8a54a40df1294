"""How many threads a kernel uses, decided when it binds."""

import numba
import numpy as np

_LITTLE = 1 << 16  # multiplications that take less time than another thread takes to begin


def alone(multiplications):
    """Whether the calling thread is sooner done by itself."""
    return multiplications < _LITTLE


def sharing(multiplications):
    """(how many threads share a product, the counter of what they have claimed of it)."""
    return 1 if alone(multiplications) else numba.get_num_threads(), np.zeros(1, np.int64)
