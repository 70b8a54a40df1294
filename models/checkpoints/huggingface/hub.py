"""Finds models of the Hugging Face hub by id: `Org/Name` or `Org/Name@revision`.

The package huggingface_hub does the work, in its own cache, with its own variables: HF_HUB_CACHE or
HF_HOME, HF_HUB_OFFLINE, HF_TOKEN. It is imported when an id is looked up.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from core.errors import CheckpointError
from models.checkpoints.gguf.split import first_part

_PART = r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9_])?"
_ID = re.compile(rf"({_PART}/{_PART})(?:@([\w./-]+))?", re.ASCII)
_SMALL = ("config.json", "generation_config.json", "adapter_config.json", "tokenizer.json",
          "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
          "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja",
          "chat_template.json", "additional_chat_templates/*.jinja")
_SAFETENSORS, _TORCH = "model*.safetensors", "pytorch_model*.bin"


@dataclass(frozen=True)
class HubId:
    """Names a model of the hub; `revision` is a branch, a tag, refs/pr/N or a commit."""

    repo: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> HubId | None:
        """Return the id that a text looks like, None if it is none."""
        found = _ID.fullmatch(text)
        return None if found is None else cls(found[1], found[2])

    def __str__(self) -> str:
        return self.repo if self.revision is None else f"{self.repo}@{self.revision}"


def needed_files(names: Iterable[str]) -> list[str]:
    """Choose what is read of a repository's files: configuration, tokenizer, and weights in
    safetensors, else in PyTorch's files, else one GGUF model, in a file or in parts. Never code.

    Raises CheckpointError for no weights, and for several GGUF models without others.
    """
    here = [n for n in names if "/" not in n or n.startswith("additional_chat_templates/")]
    small = [n for n in here if any(fnmatchcase(n, pattern) for pattern in _SMALL)]
    for pattern in (_SAFETENSORS, _TORCH):
        weights = [n for n in here if fnmatchcase(n, pattern)]
        if weights:
            index = f"{pattern}.index.json"
            return [*small, *weights, *(n for n in here if fnmatchcase(n, index))]
    gguf = sorted(n for n in here if n.lower().endswith(".gguf"))
    if len(gguf) > 1 and first_part([Path(n) for n in gguf]) is None:
        raise CheckpointError(f"it holds {len(gguf)} GGUF files; fetch one of them with "
                              f"`hf download`, and name the file: {', '.join(gguf[:8])}")
    if not gguf:
        raise CheckpointError(f"it holds no weights in a known format, but "
                              f"{', '.join(sorted(here)[:8]) or 'no files'}")
    return gguf


def hub_folder(wanted: HubId, notes: list[str]) -> Path:
    """Return the folder of a model in the cache of huggingface_hub, fetched if it is not there.

    Notes which commit it is, and where the hub could not be asked for a newer one.
    Raises CheckpointError saying what was looked for.
    """
    from huggingface_hub import constants
    cache, offline = Path(constants.HF_HUB_CACHE), bool(constants.HF_HUB_OFFLINE)
    cached = _cached(wanted)
    if not offline:
        try:
            cached = _fetched(wanted)
        except CheckpointError as error:
            raise CheckpointError(f"the hub has {wanted}, but {error}") from None
        except Exception as error:  # its own, its HTTP library's, or the system's
            said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            if cached is None or _refused(error):
                raise CheckpointError(_nothing(wanted, cache, f"the hub said {said}")) from None
            notes.append(f"the hub could not be asked for {wanted} ({said}); the copy in the cache "
                         "is used")
    if cached is None:
        raise CheckpointError(_nothing(wanted, cache, "HF_HUB_OFFLINE is set, so nothing was "
                                                      "fetched"))
    notes.append(f"{wanted} is commit {cached.name} in {cache}")
    return cached


def _nothing(wanted: HubId, cache: Path, why: str) -> str:
    folder = cache / f"models--{wanted.repo.replace('/', '--')}"
    there = "is there, but not this revision, or not whole" if folder.is_dir() else "is not there"
    return f"{folder} {there}, and {why}"


def _cached(wanted: HubId) -> Path | None:
    """Return the snapshot in the cache, None if there is none with a model in it."""
    from huggingface_hub import snapshot_download
    try:
        folder = Path(snapshot_download(wanted.repo, revision=wanted.revision,
                                        local_files_only=True, allow_patterns=["config.json"]))
    except (OSError, ValueError):  # not there, or an id that the hub does not allow
        return None
    return folder if any(folder.iterdir()) else None


def _fetched(wanted: HubId) -> Path:
    """Return the snapshot that the hub names, with what was missing of it fetched: that shows
    progress on standard error. Raises what huggingface_hub raises, and CheckpointError."""
    from huggingface_hub import HfApi, snapshot_download, try_to_load_from_cache
    found = HfApi().model_info(wanted.repo, revision=wanted.revision, timeout=20)
    names = needed_files(f.rfilename for f in found.siblings or ())
    paths = [try_to_load_from_cache(wanted.repo, name, revision=found.sha) for name in names]
    first = next(iter(paths), None)
    if isinstance(first, str) and all(isinstance(path, str) for path in paths):
        depth = names[0].count("/")
        return Path(first).parents[depth]
    return Path(snapshot_download(wanted.repo, revision=wanted.revision,
                                  allow_patterns=[glob.escape(name) for name in names]))


def _refused(error: Exception) -> bool:
    """Return whether the hub answered that there is no such model, revision, or no permission."""
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
    return isinstance(error, (RepositoryNotFoundError, RevisionNotFoundError))
