"""Finds the path of a model: what the user wrote, or a folder in the cache of the hub."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from core.errors import CheckpointError
from core.reading import MIB, POINTER_BYTES, open_regular
from models.checkpoints.gguf.split import first_part
from models.checkpoints.huggingface.hub import HubId, hub_folder

FOLDER_CONFIGS = ("config.json", "params.json")  # a folder with one of these is read as a whole
_SMALL_FILES = (
    *FOLDER_CONFIGS, "generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer.bin",
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "chat_template.jinja", "chat_template.json")
LONGEST = 1000  # characters of a name that a message shows
_LARGEST = 64 * MIB  # the largest published tokenizer.json has 33 MB


@dataclass(frozen=True)
class Place:
    """Holds where a model lies, what to say of it, and its id if it is the hub's."""

    path: Path
    notes: list[str] = field(default_factory=list)
    hub_id: str = ""


def locate(name: str, shipped: Sequence[str]) -> Place:
    """Find a path, else an id of the Hugging Face hub; `shipped` are names for the error.

    Raises CheckpointError saying what was looked for, and for what is no file and no folder.
    """
    path = _expanded(name)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return _in_hub(name, shipped)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        said = error.strerror if isinstance(error, OSError) else error
        raise CheckpointError(f"cannot read {str(path)[:LONGEST]!r}: {said}") from None
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise CheckpointError(f"{path} is no regular file and no folder; name the file or the "
                              "folder that holds the model")
    return Place(path)


def _in_hub(name: str, shipped: Sequence[str]) -> Place:
    """Return the folder in the hub's cache of what is no path. Raises CheckpointError."""
    wanted, said, notes = HubId.parse(name), "", list[str]()
    if wanted is not None:
        try:
            return Place(hub_folder(wanted, notes), notes, name)
        except CheckpointError as error:
            said = f": {error}"
    raise CheckpointError(f"no model at {name!r}: expected a path, one of the shipped models "
                          f"{', '.join(shipped)}, or an id of the Hugging Face hub, "
                          f"Org/Name or Org/Name@revision{said}")


def check_beside(path: Path) -> None:
    """Raise CheckpointError if one of the small files of a model is no regular file, a huge one, or
    a pointer of Git LFS: the libraries that open them would wait, fill the memory, or say little.
    """
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
        if found.st_size < POINTER_BYTES:
            try:
                open_regular(folder / name).close()
            except OSError as error:
                raise CheckpointError(f"cannot read {folder / name}: {error.strerror}") from None


def only_gguf(path: Path) -> Path:
    """Return the GGUF file of a folder that holds one, or the first of a model's parts, and no
    configuration; else the path itself. Raises CheckpointError where there are several."""
    if path.is_file() or any((path / n).exists() for n in FOLDER_CONFIGS):
        return path
    try:
        found = sorted(p for p in path.iterdir() if p.suffix.lower() == ".gguf")
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None
    if len(found) > 1 and first_part(found) is None:
        raise CheckpointError(f"{path} holds {len(found)} GGUF files; name one of them: "
                              f"{', '.join(p.name for p in found[:8])}")
    return found[0] if found else path


def listed(folder: Path) -> str:
    """Return the names in a folder for a message; a link that leads nowhere is told as such."""
    names = [p.name if p.exists() else f"{p.name} (a link to a file that is not there)"
             for p in sorted(folder.iterdir())]
    return (", ".join(names[:12]) + (", ..." if len(names) > 12 else "")) or "nothing"


def _expanded(path: str | Path) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:  # no such user
        raise CheckpointError(f"no model at {str(path)!r}: there is no such home folder; write "
                              "the path out") from None
