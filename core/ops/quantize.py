"""Quantises a matrix into integer codes and scales by group (see core.ops.quantized_linear)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.tensor.tensor import Array

DEFAULT_GROUP = {8: 64, 4: 128}
_ROWS = 1 << 22  # elements quantised at a time, to bound memory


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
             symmetric: bool | None = None) -> Quantized:
    """Round each group to its own grid.

    Symmetric: scale = max|w| / 127 (8 bits) or / 7 (4 bits, codes 1..15). Asymmetric: the grid
    spans min..max. By default 8 bits are symmetric and 4 bits are not. A row's last group may be
    short.
    """
    group = group_size or DEFAULT_GROUP[bits]
    symmetric = bits == 8 if symmetric is None else symmetric
    n, k = weight.shape
    groups = -(-k // group)
    codes = np.empty((n, k), np.int16)
    scales = np.empty((n, groups), np.float32)
    zeros = None if symmetric else np.empty((n, groups), np.float32)
    step = max(1, _ROWS // max(1, groups * group))
    for start in range(0, n, step):
        part = slice(start, min(n, start + step))
        rows = np.zeros((part.stop - start, groups * group), np.float32)
        rows[:, :k] = weight[part]
        if groups * group > k and not symmetric:
            rows[:, k:] = rows[:, k - 1:k]  # padding must not widen the last group's range
        grouped = rows.reshape(-1, groups, group)
        code, scale, zero = _grid(grouped, bits, symmetric)
        codes[part] = code.reshape(len(rows), -1)[:, :k]
        scales[part] = scale
        if zeros is not None:
            zeros[part] = zero
    return Quantized(_pack(codes, bits), scales, zeros, bits, group)


def _grid(grouped: Array, bits: int, symmetric: bool) -> tuple[Array, Array, Array]:
    if symmetric:
        largest, middle = (127, 0) if bits == 8 else (7, 8)
        scale = np.abs(grouped).max(axis=-1) / np.float32(largest)
        scale[scale == 0] = 1
        code = np.rint(grouped / scale[..., None]).clip(-largest, largest) + middle
        return code, scale, np.zeros_like(scale)
    low, high = grouped.min(axis=-1), grouped.max(axis=-1)
    lowest, steps = (-127, 254) if bits == 8 else (0, 15)
    scale = (high - low) / np.float32(steps)
    scale[scale == 0] = np.where(low == 0, 1, np.abs(low))[scale == 0]
    zero = lowest - low / scale
    code = np.rint(grouped / scale[..., None] + zero[..., None]).clip(lowest, lowest + steps)
    return code, scale, zero


def _pack(codes: Array, bits: int) -> Array:
    if bits == 8:
        return codes.astype(np.int8)
    if codes.shape[1] % 2:
        codes = np.pad(codes, ((0, 0), (0, 1)))
    packed: Array = codes[:, 0::2] | codes[:, 1::2] << 4
    return packed.astype(np.uint8)
