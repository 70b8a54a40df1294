"""Quantises a matrix into integer codes and scales by group (see core.ops.quantized_linear)."""

from __future__ import annotations

import os
from contextvars import copy_context
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from core.tensor.dtype import bf16
from core.tensor.tensor import Array

DEFAULT_GROUP = {8: 64, 4: 128}
_BLOCK = 1 << 16  # elements quantised at a time: their float32 stays in a core's second cache
_LITTLE = 1 << 20  # elements that take less time than threads take to begin


@dataclass(frozen=True)
class Quantized:
    """Holds codes int8 [N,K] or uint8 [N,ceil(K/2)]; scales, zeros float32
    [N,ceil(K/group_size)]."""

    codes: Array
    scales: Array
    zeros: Array | None
    bits: int
    group_size: int


def quantize(weight: Array, bits: int, group_size: int | None = None, *,
             symmetric: bool | None = None, threads: int | None = None) -> Quantized:
    """Round each group to its own grid.

    Symmetric: scale = max|w| / 127 (8 bits) or / 7 (4 bits, codes 1..15). Asymmetric: the grid
    spans min..max. By default 8 bits are symmetric and 4 bits are not. A row's last group may be
    short. `threads` share the rows (default: as many as this process has cores); their number
    changes no bit. Beside the result only a block for each thread takes memory.
    """
    group = group_size or DEFAULT_GROUP[bits]
    symmetric = bits == 8 if symmetric is None else symmetric
    n, k = weight.shape
    groups = -(-k // group)
    codes = np.empty((n, k) if bits == 8 else (n, -(-k // 2)), np.int8 if bits == 8 else np.uint8)
    scales = np.empty((n, groups), np.float32)
    result = Quantized(codes, scales, None if symmetric else np.empty_like(scales), bits, group)
    workers = 1 if n * k < _LITTLE else min(n, threads or _cores())
    edges = [n * i // workers for i in range(workers + 1)]
    if workers == 1:
        _fill(result, weight, 0, n)
        return result
    from concurrent.futures import ThreadPoolExecutor  # not at each start: it takes 20 ms
    with ThreadPoolExecutor(workers) as pool:  # NumPy lets others run while it computes a block
        for done in [pool.submit(copy_context().run, _fill, result, weight, *span)
                     for span in pairwise(edges)]:
            done.result()
    return result


def _cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _fill(result: Quantized, weight: Array, start: int, stop: int) -> None:
    """Quantise the rows from `start` to `stop`, by blocks that a core's cache holds."""
    k, (groups, group) = weight.shape[1], (result.scales.shape[1], result.group_size)
    width, bits = groups * group, result.bits
    step = min(stop - start, max(1, _BLOCK // max(1, width)))
    block, other = np.zeros((2, step, width), np.float32)
    pairs = np.zeros((step, k + k % 2), np.uint8)
    for first in range(start, stop, step):
        part = slice(first, min(stop, first + step))
        rows, nibbles = block[:part.stop - first], pairs[:part.stop - first]
        _widen(weight[part], rows[:, :k])
        if width > k:  # padding must not widen the last group's range
            rows[:, k:] = 0 if result.zeros is None else rows[:, k - 1:k]
        grouped = rows.reshape(-1, groups, group)
        if result.zeros is None:
            scratch = other[:len(rows)].reshape(grouped.shape)
            result.scales[part] = _symmetric(grouped, scratch, bits)
        else:
            result.scales[part], result.zeros[part] = _asymmetric(grouped, bits)
        if bits == 8:
            np.copyto(result.codes[part], rows[:, :k], casting="unsafe")
            continue
        np.copyto(nibbles[:, :k], rows[:, :k], casting="unsafe")
        both = nibbles.view("<u2")  # the lower index in the low byte
        np.copyto(result.codes[part], both | both >> 4, casting="unsafe")


def _widen(rows: Array, out: Array) -> None:
    """Convert to float32. bf16 is its upper half; moving bits is faster than NumPy's cast."""
    if rows.dtype == bf16.numpy:
        words = out.view(np.uint32)
        words[:] = rows.view(np.uint16)
        np.left_shift(words, 16, out=words)
    else:
        out[:] = rows


def _symmetric(grouped: Array, scratch: Array, bits: int) -> Array:
    """Replace the numbers by their codes; return the scales."""
    largest, middle = (127, 0) if bits == 8 else (7, 8)
    scale: Array = np.abs(grouped, out=scratch).max(axis=-1) / np.float32(largest)
    scale[scale == 0] = 1
    np.divide(grouped, scale[..., None], out=grouped)
    np.rint(grouped, out=grouped)
    np.clip(grouped, -largest, largest, out=grouped)
    if middle:
        np.add(grouped, np.float32(middle), out=grouped)
    return scale


def _asymmetric(grouped: Array, bits: int) -> tuple[Array, Array]:
    """Replace the numbers by their codes; return scales and zeros."""
    low, high = grouped.min(axis=-1), grouped.max(axis=-1)
    lowest, steps = (-127, 254) if bits == 8 else (0, 15)
    scale = (high - low) / np.float32(steps)
    scale[scale == 0] = np.where(low == 0, 1, np.abs(low))[scale == 0]
    zero = lowest - low / scale
    np.divide(grouped, scale[..., None], out=grouped)
    np.add(grouped, zero[..., None], out=grouped)
    np.rint(grouped, out=grouped)
    np.clip(grouped, lowest, lowest + steps, out=grouped)
    return scale, zero
