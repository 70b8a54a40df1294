"""Makes arrays as compiled code takes them: one axis, and never None."""

from itertools import accumulate

import numpy as np


def flat(array):
    """Return all elements in one axis; no elements for an absent array."""
    return np.empty(0, np.float32) if array is None else array.reshape(-1)


def wide(vector):
    """Return a short vector of weights (a bias, a norm's weight) as float32, made once a plan."""
    if vector is None or vector.dtype == np.float32:
        return flat(vector)
    words = vector.reshape(-1)  # bits of f16 in int16, of bf16 in uint16
    if words.dtype == np.int16:
        return words.view(np.float16).astype(np.float32)
    return (words.astype(np.uint32) << 16).view(np.float32)


def cut(array, sizes):
    """Return consecutive parts of an array with so many elements each; the last has the rest."""
    *before, end = accumulate(sizes[:-1], initial=0)
    return [*[array[i:i + size] for i, size in zip(before, sizes, strict=False)], array[end:]]
