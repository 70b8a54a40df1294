"""Tells whether `core` and `models` are ours: both are names that other projects use too."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def shadows(name: str) -> str | None:
    """Return where another package of that name lies that would be imported instead of ours.

    Nothing is imported. Ours holds a file that names it: `core/plugins/hookspecs.py` and
    `models/engine/load.py`.
    """
    mark = {"core": "plugins/hookspecs.py", "models": "engine/load.py"}[name]
    spec = importlib.util.find_spec(name)
    places = [] if spec is None else list(spec.submodule_search_locations or [spec.origin])
    if any(place is not None and (Path(place) / mark).is_file() for place in places):
        return None
    return str(places[0]) if places else "nowhere"


def check_own(*names: str) -> None:
    """Raise ImportError, in one line, where a package of ours is shadowed."""
    for name in names:
        place = shadows(name)
        if place is not None:
            raise ImportError(
                f"kernelyard's package {name!r} is shadowed by {place}; run from another folder, "
                f"or rename that one: Python finds it first", name=name)
