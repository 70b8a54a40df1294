"""Checkpoint: what a reader of any file format hands over, and how a reader is found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from core.errors import CheckpointError
from core.registry import Registry
from core.tensor import Array
from core.weights import QuantizedLayout
from models.config import ConfigReader
from models.tokenizer import Tokenizer

SHIPPED = Path(__file__).parent / "shipped"
DEFAULT_MODEL = "stories-llama2"


@dataclass
class Checkpoint:
    """config in Hugging Face's keys, arrays in its names, and what the files say of stopping.

    quantized    matrices whose arrays are codes and scales; see core.weights.QuantizedLayout
    interleaved  whether q and k rows are in pairs for interleaved rope, as llama2.c and Meta store
                 them, not in halves as Hugging Face does
    """

    path: Path
    config: ConfigReader
    arrays: Mapping[str, Array]
    tokenizer: Tokenizer
    eos_ids: tuple[int, ...]
    quantized: Mapping[str, QuantizedLayout] = field(default_factory=dict)
    interleaved: bool = False
    notes: list[str] = field(default_factory=list)


class CheckpointFormat(Protocol):
    """A file format. `recognises` looks at contents, not at names; `key` names the format where
    contents are not enough: `key:path`. A reader with `files = False` is given what follows its
    key, which is no path."""

    name: str
    key: str

    def recognises(self, path: Path) -> bool: ...

    def read(self, path: Path) -> Checkpoint:
        """Raises CheckpointError, ConfigError or TokenizerError."""


def shipped_models() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(p.parent.name for p in SHIPPED.glob("[!.]*/config.json"))


def read_checkpoint(path_or_name: str | Path, registry: Registry) -> Checkpoint:
    """Open a shipped model by name, else a path (`./name` where a folder has a shipped name), or
    `format:path` for a file whose contents do not say what they are.

    Raises CheckpointError saying what was looked for.
    """
    formats: dict[str, CheckpointFormat] = {}

    def register(reader: CheckpointFormat) -> None:
        if reader.key in formats:
            raise CheckpointError(f"checkpoint format {reader.key!r} is registered twice")
        formats[reader.key] = reader

    registry.plugins.call_each("register_checkpoints", register=register)
    key, _, rest = str(path_or_name).partition(":")
    forced = key in formats and bool(rest)
    shipped = str(path_or_name) in shipped_models()
    path = SHIPPED / path_or_name if shipped else Path(rest if forced else path_or_name)
    if not path.exists() and not (forced and not getattr(formats[key], "files", True)):
        raise CheckpointError(f"no model at {str(path)!r}: expected a path, or one of the "
                              f"shipped models {', '.join(shipped_models())}")
    if forced:
        return formats[key].read(path)
    for reader in formats.values():
        if reader.recognises(path):
            return reader.read(path)
    raise CheckpointError(f"{path} is in no known format; expected one of: "
                          f"{', '.join(f.name for f in formats.values())}")
