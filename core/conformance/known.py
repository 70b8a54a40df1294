"""Known failures: are listed in one file of a backend's package, with reasons; passing then fails.

Beside the module that the backend's `target` names lies `known_failures.txt`, if there are any:

    # a test's id, or a pattern for several      the reason
    linear-my_backend-float16-T1_N5632_K2048     sums in float16, which overflows here
"""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from core.errors import OptionError
from core.installed.registry import Registry

FILE = "known_failures.txt"


def known_failures(registry: Registry, backend: str) -> dict[str, str]:
    """Return patterns of test ids with their reasons, for an installed backend.

    Raises OptionError for a line without a reason, naming the file and the line.
    """
    found = importlib.util.find_spec(registry.spec(backend).target.partition(":")[0])
    path = Path(found.origin).parent / FILE if found and found.origin else None
    if path is None or not path.exists():
        return {}
    return read(path)


def read(path: Path) -> dict[str, str]:
    """Return the file's patterns and reasons."""
    known: dict[str, str] = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        pattern, _, reason = line.strip().partition(" ")
        if not pattern or pattern.startswith("#"):
            continue
        if not reason.strip():
            raise OptionError(f"{path}:{number}: {pattern} has no reason; expected a test's id and "
                              "why it fails, separated by a space")
        known[pattern] = reason.strip()
    return known


def reason_for(test: str, known: Mapping[str, str]) -> str | None:
    """Return the reason of the first pattern that matches."""
    return next((why for pattern, why in known.items() if fnmatchcase(test, pattern)), None)


def check_used(known: Mapping[str, str], tests: Collection[str], backend: str) -> None:
    """Raise OptionError for a pattern that matches no test of the whole suite."""
    for pattern in known:
        if not any(fnmatchcase(test, pattern) for test in tests):
            raise OptionError(f"{FILE} of {backend}: {pattern} matches no test; correct it, or "
                              "take it out")
