"""Activations as 16-bit integers: x is about scale * first, or scale * (first + second / FINER).

Each group has a scale of its own, from its largest element. One integer keeps 16 bits below that:
more than bf16 holds of any element but those far below the largest, whose share of a sum is as
small. Two keep more than float32 does.
"""

from typing import Any, NamedTuple

import numpy as np

from cpu_numba.kernels.compiled.integers import nearest, put_shorts
from cpu_numba.kernels.compiled.jit import njit
from cpu_numba.kernels.compiled.simd import fma, larger, largest, load, splat, total

MOST = np.float32(32767)
FINER = np.float32(65000)  # what is left of an element is half a unit at most: 32,500 of these
#: Columns of a group: of 128, 8-bit codes times `first` sum to less than 2^30.
GROUPS = (32, 64, 128)
_TINY = np.float32(1e-30)  # MOST by less would be infinite


class Rounded(NamedTuple):
    """Holds x as a product reads it: int16 [T,K] each, or None for the second; scales float32
    [T,G]; and the sums of its groups, float32 [T,G], where zeros ask for them."""

    first: Any
    second: Any
    scales: Any
    sums: Any


@njit(_nrt=False)
def round_group(x, start, size, first, second):
    """Round x[start : start + size]; gives the scale, NaN where an element is infinite or NaN.
    Sizes are multiples of 16."""
    zero = splat(np.float32(0))
    most, bad = zero, zero
    for i in range(start, start + size, 16):
        v = load(x, i)
        most = larger(most, larger(v, zero - v))
        bad = fma(v, zero, bad)
    scale = max(largest(most), _TINY) / MOST
    inverse, back = splat(np.float32(1) / scale), splat(-scale)
    for i in range(start, start + size, 16):
        v = load(x, i)
        whole = nearest(v * inverse)
        put_shorts(first, i, whole)
        if second is not None:  # decided when it is compiled
            put_shorts(second, i, nearest(fma(whole, back, v) * inverse * splat(FINER)))
    return scale + total(bad)


@njit(_nrt=False)
def round_row(x, t, size, group, rounded):
    """Round x[t] by groups."""
    for g in range(0, size, group):
        scale = round_group(x, t * size + g, min(group, size - g), rounded.first,
                            rounded.second)
        rounded.scales[t * -(-size // group) + g // group] = scale
