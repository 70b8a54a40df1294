"""Tests the arrows between packages, light imports, entry points and exported names."""

import ast
import importlib
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BACKENDS = {p.name for p in (ROOT / "backends").iterdir() if (p / "pyproject.toml").exists()}
DEVICE_LIBRARIES = {"cupy", "pycuda", "numba", "torch", "cuda"}
FORBIDDEN = {"core": {"models", *BACKENDS}, "models": BACKENDS,
             **{b: {"models", *(BACKENDS - {b})} for b in BACKENDS}}


def imported(source: Path):
    """Yield the top-level names of every package that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_arrows(package):
    folder = ROOT / "backends" / package / package if package in BACKENDS else ROOT / package
    files = list(folder.rglob("*.py"))
    assert files
    wrong = {str(f): bad for f in files if (bad := set(imported(f)) & FORBIDDEN[package])}
    assert not wrong


def test_import_is_light_and_fast():
    """The best of up to ten counts: a thread that shares its core takes more CPU seconds."""
    code = ("import sys, time; t = time.thread_time(); import core, models; "
            "t = time.thread_time() - t; print(t); print(*sorted(sys.modules))")
    seconds = []
    while len(seconds) < 10 and min(seconds, default=1) >= 0.5:
        out = subprocess.check_output([sys.executable, "-c", code], text=True)
        taken, modules = out.splitlines()
        assert not {name.split(".")[0] for name in modules.split()} & (DEVICE_LIBRARIES | BACKENDS)
        seconds.append(float(taken))
    assert min(seconds) < 0.5


def test_every_entry_point_loads():
    found = importlib.metadata.entry_points(group="kernelyard.plugins")
    assert {"models", "cpu_numpy"} <= {e.name for e in found}
    for entry in found:
        assert entry.load().KERNELYARD_API == 2


@pytest.mark.parametrize("module", ["core", "models", "core.ir.op"])
def test_exported_names_exist(module):
    loaded = importlib.import_module(module)
    assert [n for n in loaded.__all__ if not hasattr(loaded, n)] == []


def test_console_script():
    from models.__main__ import main
    assert main(["--help"]) == 0
    assert main(["nonsense"]) == 2
    assert main([]) == 2
