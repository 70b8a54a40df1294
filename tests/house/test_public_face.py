"""The public face: backends, documentation and plugins of tests import the porch and no room."""

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import core
import models

ROOT = Path(__file__).parents[2]
PORCH = {"core", "core.errors", "models", "kernelyard"}
BACKENDS = sorted(p for p in (ROOT / "backends").rglob("*.py"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def imports(source: str):
    """Yield (module, name) of each import of ours, inside functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            if node.module.split(".")[0] in ("core", "models", "kernelyard"):
                yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((a.name, "") for a in node.names
                        if a.name.split(".")[0] in ("core", "models", "kernelyard"))


def wrong(source: str) -> list[str]:
    return [f"{module}: {name}" for module, name in imports(source)
            if module not in PORCH
            or (name and module in ("core", "models")
                and name not in importlib.import_module(module).__all__)]


def test_the_check_can_fail():
    assert wrong("from core.plan.plan import Plan") and wrong("from core import Plan")
    assert not wrong("from core import Tensor\nfrom core.errors import OpError\nimport models")


@pytest.mark.parametrize("path", BACKENDS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_backends_import_the_porch(path):
    assert wrong(path.read_text()) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_documentation_imports_the_porch(page):
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S):
        lines = [line for line in block.splitlines() if re.match(r"\s*(from|import) ", line)]
        for line in lines:  # some blocks are parts of a function
            assert wrong(line.strip()) == [], line


@pytest.mark.parametrize("module", [core, models])
def test_the_porch_is_small_and_complete(module):
    assert len(module.__all__) <= 35 and sorted(set(module.__all__)) == sorted(module.__all__)
    assert [n for n in module.__all__ if not hasattr(module, n)] == []


def test_plugin_api_lists_every_name():
    text = (ROOT / "docs/plugin-api.md").read_text()
    names = {*core.__all__, *models.__all__} - {"__version__"}
    assert [n for n in sorted(names) if f"`{n}`" not in text] == []


def test_kernelyard_has_both():
    import kernelyard as ky
    assert ky.load is models.load and ky.KernelSet is core.KernelSet
    assert set(ky.__all__) == {*core.__all__, *models.__all__}


@pytest.mark.parametrize("name", ["core", "models"])
def test_a_shadowed_package_is_one_line(name, tmp_path):
    """Another project's `core` or `models` comes first on the path."""
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("raise RuntimeError('not ours')\n")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}

    def python(*arguments):
        return subprocess.run([sys.executable, *arguments], env=env, text=True, cwd=tmp_path,
                              capture_output=True, timeout=60)
    shadowed = f"kernelyard's package '{name}' is shadowed by {tmp_path / name}"
    for command in (["kernelyard", "doctor"], ["models.run"])[:2 if name == "core" else 1]:
        done = python("-m", *command)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
        assert shadowed in done.stderr
    done = python("-c", "import kernelyard as ky; ky.load")
    assert done.stderr.splitlines()[-1].startswith(f"ImportError: {shadowed}")


@pytest.mark.parametrize("file", ["kernelyard.py", "kernelyard/__init__.py"])
def test_a_shadowed_kernelyard_is_one_line(file, tmp_path):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("x = 1\n")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    for command in (["-m", "models.run"], ["-m", "models.doctor"], ["-c", "import models"]):
        done = subprocess.run([sys.executable, *command], env=env, text=True, cwd=tmp_path,
                              capture_output=True, timeout=60)
        last = done.stderr.splitlines()[-1]
        place = tmp_path / file.removesuffix("/__init__.py")
        assert f"package 'kernelyard' is shadowed by {place}; run from" in last
        if command[0] == "-m":
            assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
