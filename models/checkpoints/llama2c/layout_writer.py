"""Writes the tensors of a layout: float32, or Q8_0 codes followed by the scales of their groups."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from core.errors import ConfigError
from core.ops.quantized.quantize import quantize
from core.plan.weights import Progress
from models.architectures.rope import inverse_frequencies
from models.checkpoints.llama2c.layout import FREQUENCIES, Slot, total_bytes
from models.checkpoints.source import Source

LARGEST_GROUP = 64
_POSITIONS = 4096  # whose angles are in memory at a time


def write_layout(path: Path, header: bytes, layout: Sequence[Slot], source: Source, *, pairs: bool,
                group: int = 1, progress: Progress) -> None:
    """Write header and tensors into a new file. Raises CheckpointError for a missing tensor."""
    total, done = total_bytes(layout, group), 0
    with path.open("xb") as file:
        file.write(header)
        for slot in layout:
            if slot.name == FREQUENCIES:
                _write_frequencies(file, slot, source)
            else:
                _write(file, slot, source, pairs, group)
            done += slot.nbytes(group)
            progress(f"writing {path.name}", done, total)


def row_group(layout: Sequence[Slot]) -> int:
    """Return the largest power of two, at most 64, that divides every quantised row; llama2.c
    halves its 64 in the same way. Raises ConfigError below 4, where scales would outweigh codes."""
    group = LARGEST_GROUP
    while group >= 4:
        if all(s.shape[-1] % group == 0 for s in layout if s.quantized):
            return group
        group //= 2
    raise ConfigError("no group size of 4 to 64 divides the rows of every matrix; this model "
                      "cannot be written as int8 in this format: export float32, or to gguf")


def _write(file: BinaryIO, slot: Slot, source: Source, pairs: bool, group: int) -> None:
    array = source.array(slot.name, pairs=pairs)
    if not slot.quantized:
        file.write(np.ascontiguousarray(array, np.float32).data)
        return
    q = quantize(array, 8, group)
    file.write(np.ascontiguousarray(q.codes).data)
    file.write(np.ascontiguousarray(q.scales).data)


def _write_frequencies(file: BinaryIO, slot: Slot, source: Source) -> None:
    """Write cos and sin of every position: today's programs skip them, llama2.c's first ones read
    them."""
    _, positions, half = slot.shape
    frequencies = inverse_frequencies(source.config.rope, half * 2)
    for function in (np.cos, np.sin):
        for start in range(0, positions, _POSITIONS):
            rows = np.arange(start, min(start + _POSITIONS, positions), dtype=np.float32)
            file.write(function(np.outer(rows, frequencies)).astype(np.float32).data)
