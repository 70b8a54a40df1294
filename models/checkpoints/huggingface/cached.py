"""Lists the models that lie in the cache of huggingface_hub."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from core.errors import CheckpointError, InputError
from models.checkpoints.huggingface.hub import needed_files
from models.json_reader import ConfigReader


@dataclass(frozen=True)
class Listed:
    """Describes a model that `--model` takes by its name; `nbytes` counts the files that are read.
    """

    name: str
    family: str
    nbytes: int
    path: Path

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "path": str(self.path)}


def cached_models(families: Collection[str]) -> Iterator[Listed]:
    """Yield every revision in the cache that has the weights of one of `families`, or a GGUF file;
    by branch or tag, else by commit. Nothing is loaded. Raises CheckpointError."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound
    try:
        repos = scan_cache_dir().repos
    except CacheNotFound:
        return
    except (OSError, ValueError) as error:  # no folder, or one that cannot be read
        raise CheckpointError("the cache of the hub cannot be listed: "
                              f"{' '.join(str(error).split())[:200]}") from None
    for repo in sorted(repos, key=lambda r: r.repo_id):
        for revision in sorted(repo.revisions, key=lambda r: r.commit_hash):
            found = described(revision.snapshot_path, families)
            if repo.repo_type != "model" or found is None:
                continue
            for ref in sorted(revision.refs) or [revision.commit_hash]:
                name = repo.repo_id if ref == "main" else f"{repo.repo_id}@{ref}"
                yield Listed(name, *found, revision.snapshot_path)


def described(folder: Path, families: Collection[str]) -> tuple[str, int] | None:
    """Return the family of a folder's model and its size in bytes; None if none of ours, or if
    files are missing."""
    try:
        names = needed_files(p.relative_to(folder).as_posix() for p in folder.rglob("*"))
        size = sum((folder / name).stat().st_size for name in names)
        if names[0].lower().endswith(".gguf"):
            return "GGUF", size
        family = ConfigReader.open(folder / "config.json").get("architectures", list)[0]
        missing = [name for index in names if index.endswith(".index.json")
                   for name in json.loads((folder / index).read_text())["weight_map"].values()
                   if name not in names]
    except (InputError, OSError, ValueError, LookupError, AttributeError, TypeError):
        return None
    return (family, size) if family in families and not missing else None
