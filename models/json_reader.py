"""Gives typed access to JSON objects, with errors that name the file and the key."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from core.errors import ConfigError
from core.reading import MIB, read_json, shown

T = TypeVar("T")

REQUIRED: Any = object()
LARGEST = 16 * MIB  # bytes of a JSON file: the index of thousands of shards has less


class ConfigReader:
    """Gives typed access to a JSON object; errors name the file, the key, what was found and
    expected."""

    def __init__(self, data: Mapping[str, Any], where: str) -> None:
        self.data, self.where = data, where

    @classmethod
    def open(cls, path: Path) -> ConfigReader:
        """Raises ConfigError if the file is missing, too large, no regular file or no JSON object.
        """
        try:
            data = read_json(path, LARGEST)
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}; expected a Hugging Face "
                              "folder with config.json") from None
        except ValueError as error:  # also UnicodeDecodeError
            raise ConfigError(f"{path} is not valid JSON: {error}") from None
        if not isinstance(data, dict):
            raise ConfigError(f"{path} holds a {type(data).__name__}, expected a JSON object")
        return cls(data, str(path))

    def get(self, key: str, kind: type[T], default: Any = REQUIRED) -> T:  # noqa: ANN401
        """Return the value of `key`; null counts as absent. Raises ConfigError."""
        value = self.data.get(key)
        if value is None:
            if default is REQUIRED:
                raise ConfigError(f"{self.where}: key {key!r} is missing, expected {kind.__name__}")
            return default  # type: ignore[no-any-return]
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            with suppress(OverflowError):  # then it is refused below
                value = float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ConfigError(f"{self.where}: {key} is {shown(value)}, expected {kind.__name__}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{self.where}: {key} is {value}, expected a finite number")
        return value

    def size(self, key: str, default: Any = REQUIRED) -> int:  # noqa: ANN401
        """Return a positive integer."""
        value = self.get(key, int, default)
        if not 0 < value < 2**31:
            raise ConfigError(f"{self.where}: {key} is {shown(value)}, expected a positive "
                              "32-bit integer")
        return value

    def ids(self, key: str) -> tuple[int, ...]:
        """Return token ids given as one integer, a list, or not at all."""
        value = self.data.get(key)
        found = value if isinstance(value, list) else [] if value is None else [value]
        if not all(type(i) is int and 0 <= i < 2**31 for i in found):
            raise ConfigError(f"{self.where}: {key} is {shown(value)}, expected a token id or a "
                              "list of them")
        return tuple(found)

    def require(self, key: str, *expected: object) -> None:
        """Refuse a feature that would change the computation and is not implemented. The first of
        `expected` is what a file without the key means; others mean the same."""
        found = self.data.get(key)
        if found is not None and found not in expected:
            said = " or ".join(repr(e) for e in expected)
            raise ConfigError(f"{self.where}: {key} is {shown(found)}, only {said} is supported")
