"""Makes arrays as compiled code takes them: one axis, and never None."""

from itertools import accumulate

import numpy as np

from cpu_numba.compiling import bound
from cpu_numba.kernels.compiled import rows


def flat(array):
    """Return all elements in one axis; no elements for an absent array."""
    return np.empty(0, np.float32) if array is None else array.reshape(-1)


def wide(vector):
    """Return a short vector of weights (a bias, a norm's weight) as float32, made once a plan."""
    if vector is None or vector.dtype == np.float32:
        return flat(vector)
    result = np.empty(vector.size, np.float32)
    bound(rows.convert, vector.reshape(-1), result, vector.size)()
    return result


def cut(array, sizes):
    """Return consecutive parts of an array with so many elements each; the last has the rest."""
    ends = list(accumulate(sizes[:-1]))
    return [array[i:j] for i, j in zip([0, *ends], [*ends, len(array)], strict=True)]
