"""Finds the largest and the smallest number of each group by their bits.

NumPy's reductions begin anew for each group, which takes longer than its 64 numbers do. Here whole
blocks are compared with themselves, moved by one number, and every second result is kept: half as
many each time. The bits of magnitudes are ordered as the numbers are, so integers are compared, and
bf16 in half the bytes of float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from core.tensor.tensor import Array


def largest_magnitudes(words: Array, group: int, room: Array) -> Array:
    """Return max|x| of each group, float32; NaN where it has one.

    words  the numbers' bits [groups * group], uint16 of bf16 or uint32 of float32
    room   scratch [3, groups * group] of their dtype
    """
    keys = np.bitwise_and(words, _magnitude(words.dtype), out=room[0])
    return _floats(_extremes(np.maximum, keys, group, room[1:]))


def ranges(words: Array, group: int, room: Array) -> tuple[Array, Array]:
    """Return the least and the largest number of each group, as `largest_magnitudes`; one of the
    two is NaN where the group has one."""
    signed = room.view(f"i{words.itemsize}")
    keys = _ordered(words.view(signed.dtype), signed[0])
    low, high = (_floats(_ordered(np.array(_extremes(take, keys, group, signed[1:]))))
                 for take in (np.minimum, np.maximum))
    return low, high


def _magnitude(dtype: np.dtype[Any]) -> int:
    """Return the bits of a word that are not its sign."""
    return int(np.iinfo(f"i{dtype.itemsize}").max)


def _ordered(signed: Array, out: Array | None = None) -> Array:
    """Return integers ordered as the numbers: negative ones' magnitudes are flipped. It is its own
    inverse."""
    flips = np.right_shift(signed, 8 * signed.itemsize - 1, out=out)
    np.bitwise_and(flips, _magnitude(signed.dtype), out=flips)
    return np.bitwise_xor(signed, flips, out=flips)


def _extremes(take: np.ufunc, keys: Array, group: int, room: Array) -> Array:
    """Return `take` of each group, in `room` [2, groups * group]. `keys` stays as it is."""
    pair = np.dtype(f"u{2 * keys.itemsize}")
    while group % 2 == 0:
        count, group = keys.size, group // 2
        found, kept = room[0, :count], room[1, :count // 2]
        take(keys[:-1], keys[1:], out=found[:-1])
        np.copyto(kept, found.view(pair), casting="unsafe")  # the lower half: every second one
        keys = kept
    return keys if group == 1 else take.reduce(keys.reshape(-1, group), axis=-1)


def _floats(words: Array) -> Array:
    if words.itemsize == 4:
        return words.view(np.float32)
    wide: Array = words.view(np.uint16).astype(np.uint32)
    return np.left_shift(wide, 16, out=wide).view(np.float32)
