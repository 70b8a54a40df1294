"""Quantises a matrix into integer codes and scales by group (see core.ops.quantized_linear)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from core.ops.quantized.group_range import largest_magnitudes, ranges
from core.tensor.dtype import bf16
from core.tensor.tensor import Array

DEFAULT_GROUP = {8: 64, 4: 128}
_BLOCK = 1 << 17  # elements quantised at a time: they stay in a core's second cache, or almost
_AHEAD = 1 << 22  # elements whose pages are brought in at a time: many for each turn of a thread
_PAGE = 4096  # bytes; where pages are larger, some are touched twice
_NORMAL = np.finfo(np.float32).tiny  # scales from here on, and zeros up to there, leave codes in
_EXACT = 1 << 18                     # their range by themselves: the errors are far below a half


@dataclass(frozen=True)
class Quantized:
    """Holds codes int8 [N,K] or uint8 [N,ceil(K/2)]; scales, zeros float32
    [N,ceil(K/group_size)]."""

    codes: Array
    scales: Array
    zeros: Array | None
    bits: int
    group_size: int


#: Fills the parts of a matrix; returns which rows it left, bool [N], or None for all of them.
Filler = Callable[[Array, Quantized], Array | None]


def quantize(weight: Array, bits: int, group_size: int | None = None, *,
             symmetric: bool | None = None, by: Filler | None = None) -> Quantized:
    """Round each group to its own grid.

    Symmetric: scale = max|w| / 127 (8 bits) or / 7 (4 bits, codes 1..15). Asymmetric: the grid
    spans min..max. By default 8 bits are symmetric and 4 bits are not. A row's last group may be
    short. One thread computes, a block at a time, since NumPy's threads would wait for each other
    at every call; another brings in the pages that are next, which takes as long.

    by  a faster way to the same bits, such as `Backend.quantize`: what it leaves is computed here
    """
    group = group_size or DEFAULT_GROUP[bits]
    symmetric = bits == 8 if symmetric is None else symmetric
    n, k = weight.shape
    groups = -(-k // group)
    codes = np.empty((n, k) if bits == 8 else (n, -(-k // 2)), np.int8 if bits == 8 else np.uint8)
    scales = np.empty((n, groups), np.float32)
    result = Quantized(codes, scales, None if symmetric else np.empty_like(scales), bits, group)
    left = None if by is None else by(weight, result)
    if left is not None:
        _again(result, weight, np.flatnonzero(left))
        return result
    step = min(n, max(1, _BLOCK // max(1, groups * group)))
    blocks = [slice(first, min(n, first + step)) for first in range(0, n, step or 1)]
    if weight.size < 2 * _AHEAD:
        _fill(result, weight, step, blocks)
        return result
    from concurrent.futures import ThreadPoolExecutor  # not at each start: it takes 20 ms
    with ThreadPoolExecutor(1) as pool:
        many = max(1, _AHEAD // (step * k))
        ready = [pool.submit(_bring_in, weight[span], codes[span])
                 for i in range(0, len(blocks), many)
                 if (span := slice(blocks[i].start, blocks[i:i + many][-1].stop))]
        _fill(result, weight, step, (
            block for i, block in enumerate(blocks) if ready[i // many].result() is None))
    return result


def _again(result: Quantized, weight: Array, rows: Array) -> None:
    """Quantise these rows by the formula, some at a time."""
    step = max(1, _BLOCK // max(1, weight.shape[1]))
    for some in (rows[i:i + step] for i in range(0, len(rows), step)):
        q = quantize(weight[some], result.bits, result.group_size, symmetric=result.zeros is None)
        result.codes[some], result.scales[some] = q.codes, q.scales
        if result.zeros is not None:
            result.zeros[some] = q.zeros


def _bring_in(weight: Array, codes: Array) -> None:
    """Read a byte of each page of the weight, and write one of each page of the codes."""
    if weight.flags.c_contiguous:
        weight.reshape(-1).view(np.uint8)[::_PAGE].max(initial=0)
    codes.reshape(-1).view(np.uint8)[::_PAGE] = 0


def _fill(result: Quantized, weight: Array, step: int, blocks: Iterable[slice]) -> None:
    """Quantise blocks of at most `step` rows."""
    k, (groups, group) = weight.shape[1], (result.scales.shape[1], result.group_size)
    width, bits = groups * group, result.bits
    block, pairs = np.zeros((step, width), np.float32), np.zeros((step, k + k % 2), np.uint8)
    shifted = np.empty((step, pairs.shape[1] // 2), "<u2")
    whole = weight.dtype == bf16.numpy and width == k  # its own bits tell which is larger
    spare = np.empty((3, step * width), np.uint16 if whole else np.uint32)
    for part in blocks:
        rows, nibbles = block[:part.stop - part.start], pairs[:part.stop - part.start]
        _widen(weight[part], rows[:, :k])
        if width > k:  # padding must not widen the last group's range
            rows[:, k:] = 0 if result.zeros is None else rows[:, k - 1:k]
        bare = weight[part] if whole else rows
        words = bare.view(spare.dtype).reshape(-1)
        grouped, room = rows.reshape(-1, groups, group), spare[:, :words.size]
        if result.zeros is None:
            result.scales[part] = _symmetric(grouped, words, room, bits)
        else:
            result.scales[part], result.zeros[part] = _asymmetric(grouped, words, room, bits)
        if bits == 8:
            np.copyto(result.codes[part], rows[:, :k], casting="unsafe")
            continue
        np.copyto(nibbles[:, :k], rows[:, :k], casting="unsafe")
        both = nibbles.view("<u2")  # the lower index in the low byte
        np.bitwise_or(both, np.right_shift(both, 4, out=shifted[:len(both)]), out=both)
        np.copyto(result.codes[part], both, casting="unsafe")


def _widen(rows: Array, out: Array) -> None:
    """Convert to float32. bf16 is its upper half; moving bits is faster than NumPy's cast."""
    if rows.dtype == bf16.numpy:
        words = out.view(np.uint32)
        words[:] = rows.view(np.uint16)
        np.left_shift(words, 16, out=words)
    else:
        out[:] = rows


def _symmetric(grouped: Array, words: Array, room: Array, bits: int) -> Array:
    """Replace the numbers by their codes; return the scales. `words`, `room`: see `ranges`."""
    largest, middle = (127, 0) if bits == 8 else (7, 8)
    most = largest_magnitudes(words, grouped.shape[-1], room).reshape(grouped.shape[:-1])
    scale: Array = most / np.float32(largest)
    scale[scale == 0] = 1
    np.divide(grouped, scale[..., None], out=grouped)
    np.rint(grouped, out=grouped)
    if not scale.min(initial=1) >= _NORMAL:
        np.clip(grouped, -largest, largest, out=grouped)
    if middle:
        np.add(grouped, np.float32(middle), out=grouped)
    return scale


def _asymmetric(grouped: Array, words: Array, room: Array, bits: int) -> tuple[Array, Array]:
    """Replace the numbers by their codes; return scales and zeros."""
    low, high = (found.reshape(grouped.shape[:-1])
                 for found in ranges(words, grouped.shape[-1], room))
    lowest, steps = (-127, 254) if bits == 8 else (0, 15)
    scale = (high - low) / np.float32(steps)
    scale[scale == 0] = np.where(low == 0, 1, np.abs(low))[scale == 0]
    zero = lowest - low / scale
    np.divide(grouped, scale[..., None], out=grouped)
    np.add(grouped, zero[..., None], out=grouped)
    np.rint(grouped, out=grouped)
    if not (scale.min(initial=1) >= _NORMAL and np.abs(zero).max(initial=0) <= _EXACT):
        np.clip(grouped, lowest, lowest + steps, out=grouped)
    return scale, zero
