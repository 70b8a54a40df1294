"""Gives typed access to JSON objects, with errors that name the file and the key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from core.errors import ConfigError

T = TypeVar("T")


REQUIRED: Any = object()


class ConfigReader:
    """Gives typed access to a JSON object; errors name the file, the key, what was found and
    expected."""

    def __init__(self, data: Mapping[str, Any], where: str) -> None:
        self.data, self.where = data, where

    @classmethod
    def open(cls, path: Path) -> ConfigReader:
        """Raises ConfigError if the file is missing or is not a JSON object."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}; expected a Hugging Face "
                              "folder with config.json") from None
        except (ValueError, RecursionError) as error:
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
            value = float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ConfigError(f"{self.where}: {key} is {value!r}, expected {kind.__name__}")
        return value

    def size(self, key: str, default: Any = REQUIRED) -> int:  # noqa: ANN401
        """Return a positive integer."""
        value = self.get(key, int, default)
        if not 0 < value < 2**31:
            raise ConfigError(f"{self.where}: {key} is {value}, expected a positive 32-bit integer")
        return value

    def ids(self, key: str) -> tuple[int, ...]:
        """Return token ids given as one integer, a list, or not at all."""
        value = self.data.get(key)
        found = value if isinstance(value, list) else [] if value is None else [value]
        if not all(type(i) is int and i >= 0 for i in found):
            raise ConfigError(f"{self.where}: {key} is {value!r}, expected a token id or a list")
        return tuple(found)

    def require(self, key: str, expected: object) -> None:
        """Refuse a feature that would change the computation and is not implemented."""
        found = self.data.get(key, expected)
        if found not in (expected, None):
            raise ConfigError(f"{self.where}: {key} is {found!r}, only {expected!r} is supported")


