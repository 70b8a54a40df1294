"""Reads a GGUF file's metadata and tensor table; checks every count against the bytes that are
left.

https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Our own reader: `gguf.GGUFReader` takes
ten seconds for the metadata of a Llama-3 vocabulary (one NumPy array a token) and follows a damaged
count for ever.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import CheckpointError
from core.reading import open_regular, shown
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

MAX_ENTRIES = 1 << 16  # tensors, and metadata keys; a model of 126 layers has 1,200


@dataclass(frozen=True)
class TensorInfo:
    """shape with the row length last (GGUF stores it first); `raw` is the tensor's bytes, mapped.
    """

    name: str
    shape: tuple[int, ...]
    type: TensorType
    raw: Array


class Metadata(Mapping[str, Any]):
    """Holds values by key, each made when it is asked for."""

    def __init__(self, makers: Mapping[str, Callable[[], Any]]) -> None:
        self._makers = makers

    def __getitem__(self, key: str) -> Any:  # noqa: ANN401 - what metadata can hold
        return self._makers[key]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


@dataclass
class GgufHeader:
    """Holds metadata by key, tensors by name."""

    path: Path
    metadata: Metadata
    tensors: dict[str, TensorInfo]


def read_header(path: Path) -> GgufHeader:
    """Raises CheckpointError for a wrong magic or version, a truncated file, an unknown type, or
    a tensor that lies beyond the end."""
    try:
        with open_regular(path) as file:
            size = file.seek(0, 2)
            data: Any = np.memmap(file, np.uint8, "r") if size else np.empty(0, np.uint8)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None
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
    if max(tensors, entries) > MAX_ENTRIES:
        raise CheckpointError(f"{path} states {tensors} tensors and {entries} metadata entries, "
                              f"expected at most {MAX_ENTRIES}; it is damaged: fetch it again")
    makers: dict[str, Callable[[], Any]] = {}
    for _ in range(entries):
        key = c.text("a metadata key")
        if key in makers:
            raise CheckpointError(f"{path}: metadata key {shown(key)} is there twice; it is "
                                  "damaged")
        makers[key] = c.value(c.number("I", key), f"metadata {key}")
    metadata = Metadata(makers)
    table = [_entry(c) for _ in range(tensors)]
    return GgufHeader(path, metadata, _place(path, data, c.at, metadata, table))


def _entry(c: Cursor) -> tuple[str, tuple[int, ...], TensorType, int]:
    name = c.text("a tensor name")
    if not name.isprintable():
        raise CheckpointError(f"{c.path}: a tensor is named {shown(name)}, expected printable "
                              "characters; the file is damaged")
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


def _place(path: Path, data: Array, end: int, metadata: Metadata,
           table: list[tuple[str, tuple[int, ...], TensorType, int]]) -> dict[str, TensorInfo]:
    alignment = metadata.get("general.alignment", ALIGNMENT)
    if type(alignment) is not int or not 0 < alignment <= 1 << 20 or alignment & alignment - 1:
        raise CheckpointError(f"{path}: general.alignment is {shown(alignment)}, expected a "
                              "power of two; the file is damaged")
    start = -(-end // alignment) * alignment
    tensors: dict[str, TensorInfo] = {}
    expected = 0
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
        if offset != expected:  # llama.cpp demands the same
            raise CheckpointError(f"{path}: tensor {name} begins {offset} bytes into the data, "
                                  f"expected {expected}, where the one before it ends; the file "
                                  "is damaged: fetch it again")
        expected += -(-nbytes // alignment) * alignment
        raw = data[start + offset:start + offset + nbytes]
        tensors[name] = TensorInfo(name, shape, kind, raw)
    return tensors
