"""Reads GGUF's values in order from mapped bytes, none beyond the end of the file."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import CheckpointError
from models.checkpoints.gguf.types import ARRAY, SCALARS, STRING


class Cursor:
    """Reads little-endian values in order. Raises CheckpointError at the end of the file."""

    def __init__(self, path: Path, data: Any) -> None:  # noqa: ANN401 - a NumPy buffer
        self.path, self.data, self.at = path, memoryview(data), 0
        self.size = data.size

    def take(self, count: int, what: str) -> bytes:
        if count > self.size - self.at:
            raise CheckpointError(f"{self.path}: {what} needs {count} bytes at byte {self.at}, the "
                                  f"file has {self.size}; it is truncated or damaged: fetch "
                                  "it again")
        self.at += count
        return bytes(self.data[self.at - count:self.at])

    def number(self, code: str, what: str) -> Any:  # noqa: ANN401 - int, float or bool
        return struct.unpack("<" + code, self.take(struct.calcsize(code), what))[0]

    def text(self, what: str) -> str:
        length = int.from_bytes(self.take(8, what), "little")
        try:
            return self.take(length, what).decode()
        except UnicodeDecodeError:
            raise CheckpointError(f"{self.path}: {what} is not UTF-8; the file is damaged"
                                  ) from None

    def value(self, kind: int, what: str) -> Any:  # noqa: ANN401 - what metadata can hold
        if kind in SCALARS:
            return self.number(SCALARS[kind], what)
        if kind == STRING:
            return self.text(what)
        if kind != ARRAY:
            raise CheckpointError(f"{self.path}: {what} has value type {kind}, expected 0 to 12; "
                                  "the file is damaged or of a newer version")
        kind, count = self.number("I", what), self.number("Q", what)
        if kind in SCALARS:
            raw = self.take(count * struct.calcsize(SCALARS[kind]), what)
            return np.frombuffer(raw, "<" + SCALARS[kind]).tolist()
        if kind != STRING:  # arrays of arrays are in the format, and in no model
            raise CheckpointError(f"{self.path}: {what} is an array of value type {kind}, expected "
                                  "numbers or strings")
        if count * 8 > self.size - self.at:
            raise CheckpointError(f"{self.path}: {what} has {count} strings, more than the file "
                                  "can hold; it is truncated or damaged")
        return [self.text(what) for _ in range(count)]
