"""Writes llama2.c's `.bin` in versions 0, 1 and 2, and the tokenizer.bin that it needs beside
it."""

from __future__ import annotations

import struct
from pathlib import Path

from core.errors import ConfigError
from core.plan.weights import Progress
from models.checkpoints.llama2c.layout import Dimensions, v0_layout, v1_layout, v2_layout
from models.checkpoints.llama2c.layout_writer import row_group, write_layout
from models.checkpoints.llama2c.reader import EPS, GROUP, HEADER, HEADER_BYTES, MAGIC, THETA
from models.checkpoints.source import Source


def write_llama2c(source: Source, path: Path, version: int, progress: Progress) -> None:
    """v0 and v1 are float32, v2 is int8. Raises ConfigError for a model that llama2.c would compute
    differently: it has no biases, no other theta or eps, and no rope scaling."""
    source.require("llama2.c", THETA, EPS)
    if source.config.biases:
        raise ConfigError(f"llama2.c has no biases, the model has them in "
                          f"{', '.join(sorted(source.config.biases))}; export to hf or gguf instead"
                          )
    d = source.dimensions()
    if version == 0:
        write_layout(path, seven(d, d.tied), v0_layout(d), source, pairs=True, progress=progress)
        return
    header = HEADER.pack(MAGIC, version, *d.numbers, d.tied)
    layout, group = v1_layout(d), 1
    if version == 2:
        layout = v2_layout(d)
        group = row_group(layout)
        header += GROUP.pack(group)
    write_layout(path, header.ljust(HEADER_BYTES, b"\0"), layout, source, pairs=True, group=group,
                progress=progress)


def seven(d: Dimensions, tied: bool) -> bytes:
    """The header of seven integers; a negative vocabulary says that a head of its own follows."""
    numbers = list(d.numbers)
    numbers[5] = d.vocab if tied else -d.vocab
    return struct.pack("<7i", *numbers)
