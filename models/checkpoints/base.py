"""Checkpoint: holds what a reader of any file format hands over; finds the reader of a path."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from core.errors import CheckpointError
from core.plan.weights import QuantizedLayout, part_names
from core.plugins.registry import Registry
from core.tensor.tensor import Array
from models.architectures.base import Architecture, families
from models.checkpoints.lazy import LazyArrays, abstract
from models.json_reader import ConfigReader
from models.tokenizers.base import Tokenizer
from models.tokenizers.pretokenizers import use_pretokenizers

SHIPPED = Path(__file__).parent.parent / "shipped"
DEFAULT_MODEL = "stories-llama2"


@dataclass
class Checkpoint:
    """Holds config in Hugging Face's keys, arrays in its names, and what the files say of stopping.

    quantized    matrices whose arrays are codes and scales; see core.plan.weights.QuantizedLayout
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
    """Reads a file format. `recognises` looks at contents, not at names; `key` names the format
    where contents are not enough: `key:path`. A reader with `files = False` is given what follows
    its key, which is no path."""

    name: str
    key: str

    def recognises(self, path: Path) -> bool: ...

    def read(self, path: Path, families: Mapping[str, Architecture]) -> Checkpoint:
        """Read a file; `families` are the known architectures by name. A reader of plugin API 1
        takes the path alone. Raises CheckpointError, ConfigError or TokenizerError."""


def shipped_models() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(p.parent.name for p in SHIPPED.glob("[!.]*/config.json"))


def read_checkpoint(path_or_name: str | Path, registry: Registry) -> Checkpoint:
    """Open a shipped model by name, else a path (`./name` where a folder has a shipped name), or
    `format:path` for a file whose contents do not say what they are.

    Raises CheckpointError saying what was looked for.
    """
    formats: Mapping[str, CheckpointFormat] = registry.table("register_checkpoints")
    known = families(registry)
    use_pretokenizers(registry.table("register_pretokenizers"))
    key, _, rest = str(path_or_name).partition(":")
    forced = key in formats and bool(rest)
    shipped = str(path_or_name) in shipped_models()
    path = SHIPPED / path_or_name if shipped else Path(rest if forced else path_or_name)
    if not path.exists() and not (forced and not getattr(formats[key], "files", True)):
        raise CheckpointError(f"no model at {str(path)!r}: expected a path, or one of the "
                              f"shipped models {', '.join(shipped_models())}")
    found = formats[key] if forced else next(
        (f for f in formats.values() if f.recognises(path)), None)
    if found is None:
        raise CheckpointError(f"{path} is in no known format; expected one of: "
                              f"{', '.join(f.name for f in formats.values())}")
    checkpoint = _read(found, path, known)
    checkpoint.notes += checkpoint.tokenizer.notes
    return checkpoint


def _read(reader: CheckpointFormat, path: Path,
          known: Mapping[str, Architecture]) -> Checkpoint:
    if len(inspect.signature(reader.read).parameters) == 1:  # of plugin API 1
        return reader.read(path)  # type: ignore[call-arg]
    return reader.read(path, known)


def read_start(path: Path, count: int) -> bytes:
    """Read at most `count` first bytes. Raises CheckpointError if the file cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None


@dataclass
class Weights:
    """Collects arrays in Hugging Face's names, the layouts of quantised ones, and what was
    expanded."""

    arrays: LazyArrays = field(default_factory=LazyArrays)
    quantized: dict[str, QuantizedLayout] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add_quantized(self, name: str, codes: Array, scales: Array, group: int) -> None:
        """Add int8 codes [N,K] with scales [N,K/group]."""
        names = part_names(name)
        self.arrays.defer({names[0]: codes, names[1]: scales},
                          lambda: (codes, _checked(name, scales)))
        self.quantized[name] = QuantizedLayout(8, group, False)

    def defer_expanded(self, name: str, codes: Array, scales: Array, group: int) -> None:
        """Add float32 in place of codes that no kernel takes; it is expanded when first read."""
        self.arrays.defer({name: abstract(codes.shape, np.dtype(np.float32))},
                          lambda: (expand_groups(codes, _checked(name, scales), group),))


def _checked(name: str, scales: Array) -> Array:
    if not np.isfinite(scales).all():
        raise CheckpointError(f"scales of {name} are not finite numbers; the file is damaged "
                              "or from a draft of export.py that stored all scales at the end: "
                              "export it again")
    return scales


def expand_groups(codes: Array, scales: Array, group: int) -> Array:
    """Multiply codes [N,K] by the scale of their group; float32 [N,K]."""
    flat = codes.reshape(-1, group) * scales.reshape(-1, 1)
    return flat.astype(np.float32, copy=False).reshape(codes.shape)


