"""Finds plugins' entry points. Installed ones load; one that merely lies in a folder does not.

`python -m` puts the current folder first on Python's path, and any folder there may hold metadata
of a distribution: without a rule, a downloaded folder would run its code.
"""

from __future__ import annotations

import os
import re
import site
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint

GROUP = "kernelyard.plugins"


def find_entries() -> tuple[list[EntryPoint], list[tuple[EntryPoint, str]]]:
    """Return the entry points of installed distributions, and those that lie in the current folder
    with the reason for not loading them.

    Of distributions that share a name the first on Python's path counts, as in importlib.metadata.
    """
    from importlib.metadata import distributions  # brings `email`: not to every `import core`
    groups: dict[str, list[tuple[Distribution, list[EntryPoint]]]] = {}
    for dist in distributions():
        if GROUP in (dist.read_text("entry_points.txt") or ""):
            entries = [e for e in dist.entry_points if e.group == GROUP]
            groups.setdefault(normalized(dist_name(dist)), []).append((dist, entries))
    installed: list[EntryPoint] = []
    left: dict[tuple[str, str, str], tuple[EntryPoint, str]] = {}  # a folder may be found twice
    for group in groups.values():
        allowed = [(d, es) for d, es in group if _complaint(place(d)) is None]
        chosen = _offers(allowed[0][1]) if allowed else set()
        # the same plugins installed and in a source folder: the installed metadata stands for both
        safe = [es for d, es in allowed if trusted(place(d)) and _offers(es) == chosen]
        installed += (safe or [es for _, es in allowed] or [[]])[0]
        left |= {(e.name, e.value, why): (e, why) for d, es in group
                 if (why := _complaint(place(d))) is not None and _offers(es) != chosen for e in es}
    return installed, list(left.values())


def place(dist: Distribution | None) -> Path | None:
    """Return the folder of Python's path that holds the distribution's metadata."""
    return None if dist is None else Path(os.path.realpath(str(dist.locate_file(""))))


def trusted(where: Path | None) -> bool:
    """Tell whether a folder belongs to the interpreter, or is the one that core comes from."""
    if where is None or where == Path(os.path.realpath(__file__)).parents[2]:
        return True
    folders = [*getattr(site, "getsitepackages", list)(), site.getusersitepackages(),
               sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    return any(lies_in(where, Path(os.path.realpath(f))) for f in folders)


def lies_in(where: Path, folder: Path) -> bool:
    """Tell whether `where` is the folder or below it."""
    return where == folder or folder in where.parents


def dist_name(dist: Distribution) -> str:
    """Return the distribution's name; "?" where its metadata gives none."""
    return _metadata(dist, "Name")


def described(dist: Distribution) -> str:
    """Return the distribution's name and version, each "?" where its metadata gives none."""
    return f"{_metadata(dist, 'Name')} {_metadata(dist, 'Version')}"


def _metadata(dist: Distribution, key: str) -> str:
    try:
        return str(dist.metadata[key] or "?")
    except Exception:  # no METADATA file: what Python raises depends on its version
        return "?"


def normalized(name: str) -> str:
    """Return a distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _complaint(where: Path | None) -> str | None:
    """Return why a plugin there is not loaded, or None."""
    try:
        here = Path.cwd().resolve()
    except OSError:  # the folder was deleted
        return None
    if where is None or trusted(where) or not lies_in(where, here):
        return None
    if where != here and where in _named_by_user():
        return None
    return f"lies in the current folder ({where}) and was not loaded: install it"


def _named_by_user() -> set[Path]:
    path = "" if sys.flags.ignore_environment else os.environ.get("PYTHONPATH", "")
    return {Path(os.path.realpath(entry)) for entry in path.split(os.pathsep) if entry}


def _offers(entries: Iterable[EntryPoint]) -> set[tuple[str, str]]:
    return {(e.name, e.value) for e in entries}
