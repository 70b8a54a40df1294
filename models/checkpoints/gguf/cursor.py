"""Reads GGUF's values in order from mapped bytes, none beyond the end of the file."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import CheckpointError
from models.checkpoints.gguf.types import ARRAY, SCALARS, STRING

MAX_ARRAY = 1 << 22  # elements; the largest vocabularies have 2^18 tokens and 2^19 merges


class Cursor:
    """Reads little-endian values in order. Raises CheckpointError at the end of the file."""

    def __init__(self, path: Path, data: Any, at: int = 0) -> None:  # noqa: ANN401 - a buffer
        self.path, self.data, self.at = path, memoryview(data), at
        self.size = self.data.nbytes

    def take(self, count: int, what: str) -> bytes:
        self.skip(count, what)
        return bytes(self.data[self.at - count:self.at])

    def skip(self, count: int, what: str) -> None:
        if count > self.size - self.at:
            raise CheckpointError(f"{self.path}: {what} needs {count} bytes at byte {self.at}, the "
                                  f"file has {self.size}; it is truncated or damaged: fetch "
                                  "it again")
        self.at += count

    def number(self, code: str, what: str) -> Any:  # noqa: ANN401 - int, float or bool
        return struct.unpack("<" + code, self.take(struct.calcsize(code), what))[0]

    def text(self, what: str) -> str:
        length = int.from_bytes(self.take(8, what), "little")
        try:
            return self.take(length, what).decode()
        except UnicodeDecodeError:
            raise CheckpointError(f"{self.path}: {what} is not UTF-8; the file is damaged"
                                  ) from None

    def value(self, kind: int, what: str) -> Callable[[], Any]:
        """Skip a metadata value; the call that is returned gives it. Arrays are checked here
        and made there, as most of them are never asked for."""
        if kind in SCALARS:
            number = self.number(SCALARS[kind], what)
            return lambda: number
        if kind == STRING:
            text = self.text(what)
            return lambda: text
        if kind != ARRAY:
            raise CheckpointError(f"{self.path}: {what} has value type {kind}, expected 0 to 12; "
                                  "the file is damaged or of a newer version")
        kind, count = self.number("I", what), self.number("Q", what)
        if count > MAX_ARRAY:
            raise CheckpointError(f"{self.path}: {what} has {count} elements, expected at most "
                                  f"{MAX_ARRAY}; it is damaged: fetch it again")
        start = self.at
        if kind in SCALARS:
            nbytes = count * struct.calcsize(SCALARS[kind])
            self.skip(nbytes, what)
            return lambda: np.frombuffer(self.data[start:start + nbytes],
                                         "<" + SCALARS[kind]).tolist()
        if kind != STRING:  # arrays of arrays are in the format, and in no model
            raise CheckpointError(f"{self.path}: {what} is an array of value type {kind}, expected "
                                  "numbers or strings")
        for _ in range(count):
            self.skip(int.from_bytes(self.take(8, what), "little"), what)

        def texts() -> list[str]:
            again = Cursor(self.path, self.data, start)
            return [again.text(what) for _ in range(count)]
        return texts
