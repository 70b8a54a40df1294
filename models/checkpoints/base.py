"""Checkpoint: holds what a reader of any file format hands over; finds the reader of a path."""

from __future__ import annotations

import inspect
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from core.errors import CheckpointError, TokenizerError
from core.plan.weights import QuantizedLayout, part_names
from core.plugins.registry import Registry
from core.reading import MIB, open_regular
from core.tensor.tensor import Array
from models.architectures.base import Architecture, families
from models.checkpoints.gguf.split import first_part
from models.checkpoints.huggingface.hub import HubId, hub_folder
from models.checkpoints.lazy import LazyArrays, abstract
from models.checkpoints.limits import check_numbers, check_vocabulary
from models.checkpoints.tied import settle_head
from models.json_reader import ConfigReader
from models.tokenizers.base import Tokenizer
from models.tokenizers.pretokenizers import use_pretokenizers

SHIPPED = Path(__file__).parent.parent / "shipped"
DEFAULT_MODEL = "stories-llama2"
FOLDER_CONFIGS = ("config.json", "params.json")  # a folder with one of these is read as a whole
_SMALL_FILES = (
    *FOLDER_CONFIGS, "generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer.bin",
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "chat_template.jinja", "chat_template.json")
_LARGEST = 64 * MIB  # the largest published tokenizer.json has 33 MB


@dataclass
class Checkpoint:
    """Holds config in Hugging Face's keys, arrays in its names, and what the files say of stopping.

    quantized    matrices whose arrays are codes and scales; see core.plan.weights.QuantizedLayout
    interleaved  whether q and k rows are in pairs for interleaved rope, as llama2.c and Meta store
                 them, not in halves as Hugging Face does
    hub_id       the id of the Hugging Face hub that was asked for: the path ends in a commit
    """

    path: Path
    config: ConfigReader
    arrays: Mapping[str, Array]
    tokenizer: Tokenizer
    eos_ids: tuple[int, ...]
    quantized: Mapping[str, QuantizedLayout] = field(default_factory=dict)
    interleaved: bool = False
    notes: list[str] = field(default_factory=list)
    hub_id: str = ""

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
    formats: Mapping[str, CheckpointFormat] = registry.table("register_checkpoints")
    known = families(registry)
    use_pretokenizers(registry.table("register_pretokenizers"))
    key, _, rest = str(path_or_name).partition(":")
    forced = key in formats and bool(rest)
    shipped = str(path_or_name) in shipped_models()
    if forced and not getattr(formats[key], "files", True):
        return _checked(_read(formats[key], Path(rest), known))
    path = SHIPPED / path_or_name if shipped else _expanded(rest if forced else path_or_name)
    notes: list[str] = []
    hub_id = ""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        hub_id = str(rest if forced else path_or_name)
        path = _hub_path(hub_id, notes)
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        said = error.strerror if isinstance(error, OSError) else error
        raise CheckpointError(f"cannot read {str(path)!r}: {said}") from None
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise CheckpointError(f"{path} is no regular file and no folder; name the file or the "
                              "folder that holds the model")
    registry.plugins.check_outside(path)
    _check_beside(path)
    if forced:
        return _checked(_read(formats[key], path, known), notes, hub_id)
    path = _only_gguf(path)
    for reader in formats.values():
        if reader.recognises(path):
            return _checked(_read(reader, path, known), notes, hub_id)
    if path.is_file() and any((path.absolute().parent / n).exists() for n in FOLDER_CONFIGS):
        raise CheckpointError(f"{path} is one file of a model folder; name the folder: "
                              f"{path.absolute().parent}")
    raise CheckpointError(f"{path} is in no known format; expected one of: "
                          f"{', '.join(f.name for f in formats.values())}")


def _hub_path(name: str, notes: list[str]) -> Path:
    """Return the folder in the hub's cache of what is no path. Raises CheckpointError."""
    wanted, said = HubId.parse(name), ""
    if wanted is not None:
        try:
            return hub_folder(wanted, notes)
        except CheckpointError as error:
            said = f": {error}"
    raise CheckpointError(f"no model at {name!r}: expected a path, one of the shipped models "
                          f"{', '.join(shipped_models())}, or an id of the Hugging Face hub, "
                          f"Org/Name or Org/Name@revision{said}")


def _check_beside(path: Path) -> None:
    """Raise CheckpointError if one of the small files of a model is no regular file or a huge one:
    the libraries that open them would wait, or fill the memory."""
    folder = path if path.is_dir() else path.absolute().parent
    for name in _SMALL_FILES:
        try:
            found = (folder / name).stat()
        except OSError:  # a reader complains if it needs the file
            continue
        if stat.S_ISDIR(found.st_mode):  # opening one does not wait: its reader complains
            continue
        if not stat.S_ISREG(found.st_mode) or found.st_size > _LARGEST:
            what = (f"has {found.st_size} bytes, expected at most {_LARGEST}"
                    if stat.S_ISREG(found.st_mode) else "is no regular file")
            raise CheckpointError(f"{folder / name} {what}; fetch it again")


def _only_gguf(path: Path) -> Path:
    """Return the GGUF file of a folder that holds one, or the first of a model's parts, and no
    configuration; else the path itself. Raises CheckpointError where there are several."""
    if path.is_file() or any((path / n).exists() for n in FOLDER_CONFIGS):
        return path
    try:
        found = sorted(p for p in path.iterdir() if p.suffix == ".gguf")
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None
    if len(found) > 1 and first_part(found) is None:
        raise CheckpointError(f"{path} holds {len(found)} GGUF files; name one of them: "
                              f"{', '.join(p.name for p in found[:8])}")
    return found[0] if found else path


def _expanded(path: str | Path) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:  # no such user
        raise CheckpointError(f"no model at {str(path)!r}: there is no such home folder; write "
                              "the path out") from None


def _checked(checkpoint: Checkpoint, notes: Sequence[str] = (), hub_id: str = "",
             ) -> Checkpoint:
    check_numbers(checkpoint.config)
    check_vocabulary(checkpoint.tokenizer.size, str(checkpoint.path))
    checkpoint.notes = [*notes, *checkpoint.notes, *checkpoint.tokenizer.notes]
    checkpoint.hub_id = hub_id
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
    quantized: dict[str, QuantizedLayout] = field(default_factory=dict)
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
