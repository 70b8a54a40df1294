"""Reads the tensors of a layout: float32 as memory maps, Q8_0 as int8 codes and scales by group."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import CheckpointError
from core.reading import open_regular
from core.tensor.tensor import Array
from models.checkpoints.base import Weights
from models.checkpoints.llama2c.layout import (
    FREQUENCIES,
    Slot,
    check_group,
    total_bytes,
)


def read_layout(path: Path, start: int, layout: Sequence[Slot], group: int = 1) -> Weights:
    """Map the tensors that begin at byte `start`. Raises CheckpointError unless the file ends where
    they end: a file of another size has another layout or is damaged."""
    check_group(layout, group, str(path))
    try:
        with open_regular(path) as file:
            data: Any = np.memmap(file, np.uint8, "r")
    except (OSError, ValueError) as error:  # ValueError: an empty file
        said = error.strerror if isinstance(error, OSError) else error
        raise CheckpointError(f"cannot read {path}: {said}") from None
    size, needed = data.size, start + total_bytes(layout, group)
    if size != needed:
        state = "is truncated" if size < needed else "has another layout or is damaged"
        raise CheckpointError(f"{path}: the header describes {needed} bytes, the file has {size}; "
                              f"it {state}: fetch it again")
    weights, at = Weights(), start
    for slot in layout:
        raw = data[at:at + slot.nbytes(group)]
        at += slot.nbytes(group)
        if slot.name == FREQUENCIES:
            continue
        if slot.quantized:
            _add_quantized(weights, slot, raw, group)
        else:
            weights.arrays[slot.name] = _float32(raw).reshape(slot.shape)
    return weights


def _add_quantized(weights: Weights, slot: Slot, raw: Array, group: int) -> None:
    rows, columns = slot.shape
    codes = raw[:rows * columns].view(np.int8).reshape(slot.shape)
    scales = _float32(raw[rows * columns:])
    if columns % group == 0:
        weights.add_quantized(slot.name, codes, scales.reshape(rows, -1), group)
    else:
        weights.defer_expanded(slot.name, codes, scales, group)
        weights.notes.append(f"{slot.name} was expanded to f32: its groups of {group} run over the "
                             f"ends of its rows of {columns}")


def _float32(raw: Array) -> Array:
    """Return a view, or a copy where odd group sizes left the data unaligned."""
    return (np.array(raw) if raw.ctypes.data % 4 else raw).view(np.float32)
