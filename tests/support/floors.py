"""Reads which releases the projects here admit: the oldest of each package.

`python tests/support/floors.py` prints what .ci/run installs: pytest and each dependency of the
package in its oldest release.
"""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECTS = [ROOT / "pyproject.toml", *sorted((ROOT / "backends").glob("*/pyproject.toml")),
            *sorted((ROOT / "plugins").glob("*/pyproject.toml"))]
_FLOOR = re.compile(r'"([A-Za-z][\w.-]*)(?:\[[^\]]*\])?(?:>=|==)([\w.]+)"')  # no tomllib in 3.10


def floors(text):
    """Return (name, oldest release) of each requirement in a text of pyproject.toml."""
    return [(name.lower().replace("_", "-"), floor) for name, floor in _FLOOR.findall(text)]


def dependencies():
    """Return the text of the package's own dependencies."""
    text = PROJECTS[0].read_text()
    return text[text.index("\ndependencies = ["):text.index("[project.optional-dependencies]")]


if __name__ == "__main__":
    test = dict(floors(PROJECTS[0].read_text()))["pytest"]
    print(*(f"{name}=={floor}" for name, floor in [*floors(dependencies()), ("pytest", test)]))
