"""Tells whether `core`, `models` and `kernelyard` are ours: other projects use such names too."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

#: a file that only our package of that name has
_MARKS = {"core": "plugins/hookspecs.py", "models": "engine/load.py", "kernelyard": "_own.py"}


def shadows(name: str) -> str | None:
    """Return where another package lies that Python would import instead of ours, or None.

    Nothing is imported.
    """
    spec = importlib.util.find_spec(name)
    places = [] if spec is None else [*(spec.submodule_search_locations or []), spec.origin or ""]
    if any((Path(place) / _MARKS[name]).is_file() for place in places):
        return None
    return places[0] if places else "nothing: it is not installed"


def check_own(*names: str) -> None:
    """Raise ImportError where a package of ours is shadowed.

    A command (`python -m ...`, or the console script) ends with one line and exit code 2 instead.
    """
    for name in ("kernelyard", *names):
        place = shadows(name)
        if place is None:
            continue
        message = (f"kernelyard's package {name!r} is shadowed by {place}; run from another "
                   "folder, or rename that one: Python finds it first")
        # Python puts -m there while it imports the package of a module that it will run
        if sys.argv[:1] == ["-m"] or Path(sys.argv[0]).stem == "kernelyard":
            print(f"error: {message}", file=sys.stderr)
            sys.exit(2)
        raise ImportError(message, name=name)
