"""The oldest releases that are admitted have none of the holes that are known.

HOLES is kept by hand: read the advisories of what is listed when a dependency or a floor changes.
"""

import re

import pytest
from floors import PROJECTS, ROOT, dependencies, floors

HOLES = {  # package: (first release without it, what it was)
    "jinja2": ("3.1.6", "CVE-2025-27516: the sandbox is left through |attr"),
    "sentencepiece": ("0.2.1", "CVE-2026-1260: a model file writes beyond its memory"),
    "torch": ("2.10", "CVE-2026-24747, CVE-2025-32434: torch.load(weights_only=True) runs code"),
    "setuptools": ("78.1.1", "CVE-2025-47273: a download leaves its folder"),
}


def version(text):
    return tuple(map(int, re.findall(r"\d+", text)))


def below(text):
    return [f"{name} {floor} admits {HOLES[name][1]}" for name, floor in floors(text)
            if name in HOLES and version(floor) < version(HOLES[name][0])]


def test_the_check_can_fail():
    assert below('requires = ["setuptools>=78.1.0", "torch==2.9.1"]') and below('["Jinja2>=3.1"]')
    assert not below('["setuptools>=80", "torch>=2.10", "jinja2>=3.1.10", "numpy>=1"]')


@pytest.mark.parametrize("path", PROJECTS, ids=lambda p: p.parent.name)
def test_no_floor_admits_a_known_hole(path):
    assert below(path.read_text()) == []


def test_every_hole_is_of_something_used():
    used = {name for path in PROJECTS for name, _ in floors(path.read_text())}
    assert set(HOLES) <= used


def test_every_dependency_has_a_floor_that_ci_installs():
    names = re.findall(r'^    "([\w.-]+)', dependencies(), re.M)
    assert [n.lower().replace("_", "-") for n in names] == [n for n, _ in floors(dependencies())]
    assert "python tests/support/floors.py" in (ROOT / ".ci/run").read_text()
