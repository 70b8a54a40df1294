"""Reads a GGUF file's metadata and tensor table; checks every count against the bytes that are
left.

https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Our own reader: `gguf.GGUFReader` takes
ten seconds for the metadata of a Llama-3 vocabulary (one NumPy array a token) and follows a damaged
count for ever.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import CheckpointError
from core.tensor.tensor import Array
from models.checkpoints.gguf.cursor import Cursor
from models.checkpoints.gguf.types import (
    ALIGNMENT,
    MAGIC,
    OTHERS,
    SUPPORTED,
    VERSIONS,
    TensorType,
)


@dataclass(frozen=True)
class TensorInfo:
    """shape with the row length last (GGUF stores it first); `raw` is the tensor's bytes, mapped.
    """

    name: str
    shape: tuple[int, ...]
    type: TensorType
    raw: Array


@dataclass
class GgufHeader:
    """Holds metadata by key, tensors by name."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, TensorInfo]


def read_header(path: Path) -> GgufHeader:
    """Raises CheckpointError for a wrong magic or version, a truncated file, an unknown type, or
    a tensor that lies beyond the end."""
    size = path.stat().st_size
    data: Any = np.memmap(path, np.uint8, "r") if size else np.empty(0, np.uint8)
    c = Cursor(path, data)
    if c.take(4, "the magic number") != MAGIC:
        raise CheckpointError(f"{path} does not begin with GGUF; it is in another format")
    version = c.number("I", "the version")
    if version not in VERSIONS:
        hint = " (big-endian files are not supported)" if version & 0xFFFF == 0 else ""
        raise CheckpointError(f"{path} states GGUF version {version}, expected 2 or 3{hint}; "
                              "convert the model again with a current llama.cpp")
    tensors, entries = c.number("Q", "the tensor count"), c.number("Q", "the metadata count")
    if tensors * 24 + entries * 13 > size:  # the least bytes that each can take
        raise CheckpointError(f"{path} states {tensors} tensors and {entries} metadata entries, "
                              f"more than its {size} bytes can hold; it is damaged")
    metadata: dict[str, Any] = {}
    for _ in range(entries):
        key = c.text("a metadata key")
        if key in metadata:
            raise CheckpointError(f"{path}: metadata key {key!r} is there twice; it is damaged")
        metadata[key] = c.value(c.number("I", key), f"metadata {key}")
    table = [_entry(c) for _ in range(tensors)]
    return GgufHeader(path, metadata, _place(path, data, c.at, metadata, table))


def _entry(c: Cursor) -> tuple[str, tuple[int, ...], TensorType, int]:
    name = c.text("a tensor name")
    dimensions = c.number("I", name)
    if not 1 <= dimensions <= 4:
        raise CheckpointError(f"{c.path}: tensor {name} has {dimensions} dimensions, expected 1 to "
                              "4; the file is damaged")
    shape = tuple(reversed([c.number("Q", name) for _ in range(dimensions)]))
    if 0 in shape:
        raise CheckpointError(f"{c.path}: tensor {name} has shape {list(shape)}, expected no empty "
                              "one; the file is damaged")
    kind, offset = c.number("I", name), c.number("Q", name)
    if kind not in SUPPORTED:
        names = ", ".join(t.name for t in SUPPORTED.values())
        raise CheckpointError(f"{c.path}: tensor {name} has type {OTHERS.get(kind, kind)}, "
                              f"supported are {names}; convert it with llama-quantize")
    return name, shape, SUPPORTED[kind], offset


def _place(path: Path, data: Array, end: int, metadata: dict[str, Any],
           table: list[tuple[str, tuple[int, ...], TensorType, int]]) -> dict[str, TensorInfo]:
    alignment = metadata.get("general.alignment", ALIGNMENT)
    if type(alignment) is not int or not 0 < alignment <= 1 << 20 or alignment & alignment - 1:
        raise CheckpointError(f"{path}: general.alignment is {alignment!r}, expected a power of "
                              "two; the file is damaged")
    start = -(-end // alignment) * alignment
    tensors: dict[str, TensorInfo] = {}
    for name, shape, kind, offset in table:
        if name in tensors:
            raise CheckpointError(f"{path}: tensor {name} is there twice; the file is damaged")
        if shape[-1] % kind.elements:
            raise CheckpointError(f"{path}: tensor {name} has rows of {shape[-1]}, {kind.name} "
                                  f"needs a multiple of {kind.elements}; the file is damaged")
        nbytes = math.prod(shape) // kind.elements * kind.nbytes
        if start + offset + nbytes > data.size:
            raise CheckpointError(f"{path}: tensor {name} {list(shape)} ends at byte "
                                  f"{start + offset + nbytes}, the file has {data.size}; it is "
                                  "truncated: fetch it again")
        raw = data[start + offset:start + offset + nbytes]
        tensors[name] = TensorInfo(name, shape, kind, raw)
    return tensors
