"""Checkpoint: holds what a reader of any file format hands over; finds the reader of a path."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from core.errors import CheckpointError, TokenizerError
from core.installed.registry import Registry
from core.ops.quantized.layouts import Layout, QuantizedLayout, part_names
from core.reading import open_regular, shown
from core.tensor.tensor import Array
from models.architectures.base import Architecture, families
from models.checkpoints.generation import GenerationDefaults
from models.checkpoints.lazy import LazyArrays, abstract
from models.checkpoints.limits import check_numbers, check_vocabulary
from models.checkpoints.locate import FOLDER_CONFIGS, Place, check_beside, locate, only_gguf
from models.checkpoints.tied import settle_head
from models.json_reader import ConfigReader
from models.tokenizers.base import Tokenizer
from models.tokenizers.pretokenizers import use_pretokenizers

SHIPPED = Path(__file__).parent.parent / "shipped"
DEFAULT_MODEL = "stories-llama2"


@dataclass
class Checkpoint:
    """Holds config in Hugging Face's keys, arrays in its names, and what the files say of stopping.

    quantized    matrices whose arrays are codes and scales; see core.ops.quantized.layouts
    interleaved  whether q and k rows are in pairs for interleaved rope, as llama2.c and Meta store
                 them, not in halves as Hugging Face does
    generation   the sampling that the files name
    stops_from   which of the files name each of `eos_ids`, where that is known
    hub_id       the id of the Hugging Face hub that was asked for: the path ends in a commit
    """

    path: Path
    config: ConfigReader
    arrays: Mapping[str, Array]
    tokenizer: Tokenizer
    eos_ids: tuple[int, ...]
    quantized: Mapping[str, Layout] = field(default_factory=dict)
    interleaved: bool = False
    notes: list[str] = field(default_factory=list)
    hub_id: str = ""
    generation: GenerationDefaults = field(default_factory=GenerationDefaults)
    stops_from: Mapping[int, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return the name to show."""
        return self.hub_id or self.path.name


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
    """Open a shipped model by name, else a path (`./name` where a folder has a shipped name), else
    an id of the Hugging Face hub, or `format:path` for a file whose contents do not say what they
    are.

    Raises CheckpointError saying what was looked for, PluginError where a plugin comes from the
    model's own folder.
    """
    if not isinstance(path_or_name, (str, Path)):
        raise CheckpointError(f"the model is {shown(path_or_name)}, expected a path or a name")
    formats: Mapping[str, CheckpointFormat] = registry.table("register_checkpoints")
    known = families(registry)
    use_pretokenizers(registry.table("register_pretokenizers"))
    key, _, rest = str(path_or_name).partition(":")
    forced = key in formats and bool(rest)
    if forced and not getattr(formats[key], "files", True):
        return _checked(_read(formats[key], Path(rest), known))
    shipped, asked = shipped_models(), str(rest if forced else path_or_name)
    place = Place(SHIPPED / asked) if asked in shipped and not forced else locate(asked, shipped)
    registry.plugins.check_outside(place.path)
    check_beside(place.path)
    if forced:
        return _checked(_read(formats[key], place.path, known), place)
    path = only_gguf(place.path)
    for reader in formats.values():
        if reader.recognises(path):
            return _checked(_read(reader, path, known), place)
    if path.is_file() and any((path.absolute().parent / n).exists() for n in FOLDER_CONFIGS):
        raise CheckpointError(f"{path} is one file of a model folder; name the folder: "
                              f"{path.absolute().parent}")
    raise CheckpointError(f"{path} is in no known format; expected one of: "
                          f"{', '.join(f.name for f in formats.values())}")


def _checked(checkpoint: Checkpoint, place: Place | None = None) -> Checkpoint:
    check_numbers(checkpoint.config)
    check_vocabulary(checkpoint.tokenizer.size, str(checkpoint.path))
    checkpoint.notes += checkpoint.tokenizer.notes
    if place is not None:
        checkpoint.notes[:0], checkpoint.hub_id = place.notes, place.hub_id
    settle_head(checkpoint)
    return checkpoint


def _read(reader: CheckpointFormat, path: Path,
          known: Mapping[str, Architecture]) -> Checkpoint:
    try:
        if len(inspect.signature(reader.read).parameters) == 1:  # of plugin API 1
            return reader.read(path)  # type: ignore[call-arg]
        return reader.read(path, known)
    except BaseException as error:
        # what pyo3 raises where Rust code panics is no Exception, and in no module
        if type(error).__name__ != "PanicException" and not isinstance(error, UnicodeDecodeError):
            raise
        raise TokenizerError(f"{path}: its tokenizer broke the library that reads it "
                             f"({str(error)[:160]}); the file is damaged: fetch it again") from None


def read_start(path: Path, count: int) -> bytes:
    """Read at most `count` first bytes. Raises CheckpointError if the file cannot be read."""
    try:
        with open_regular(path) as file:
            return file.read(count) or b""
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None


@dataclass
class Weights:
    """Collects arrays in Hugging Face's names, the layouts of quantised ones, and what was
    expanded."""

    arrays: LazyArrays = field(default_factory=LazyArrays)
    quantized: dict[str, Layout] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add_quantized(self, name: str, codes: Array, scales: Array, group: int) -> None:
        """Add int8 codes [N,K] with scales [N,K/group]."""
        names = part_names(name)
        self.arrays.defer({names[0]: codes, names[1]: scales},
                          lambda: (codes, finite(name, scales)))
        self.quantized[name] = QuantizedLayout(8, group, False)

    def defer_expanded(self, name: str, codes: Array, scales: Array, group: int) -> None:
        """Add float32 in place of codes that no kernel takes; it is expanded when first read."""
        self.arrays.defer({name: abstract(codes.shape, np.dtype(np.float32))},
                          lambda: (expand_groups(codes, finite(name, scales), group),))


def finite(name: str, scales: Array) -> Array:
    """Return the scales. Raises CheckpointError unless all are finite numbers."""
    if not np.isfinite(scales).all():
        raise CheckpointError(f"scales of {name} are not finite numbers; the file is damaged "
                              "or from a draft of export.py that stored all scales at the end: "
                              "export it again")
    return scales


def expand_groups(codes: Array, scales: Array, group: int) -> Array:
    """Multiply codes [N,K] by the scale of their group; float32 [N,K]."""
    flat = codes.reshape(-1, group) * scales.reshape(-1, 1)
    return flat.astype(np.float32, copy=False).reshape(codes.shape)
