"""A few commands are killed and interrupted, as tools/kills.py does to many."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = Path(__file__).parents[2] / "tools/kills.py"


@pytest.mark.parametrize("case", ["generate", "compile two", "export kuiper --force",
                                  "renames of hf --force"])
def test_kills(case):
    if case.startswith("compile"):
        pytest.importorskip("cpu_numba", reason="needs ./backends/cpu_numba")
    done = subprocess.run([sys.executable, KILLS, "--count", "2", "--case", case],
                          capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert [row.split("|")[3].strip() for row in done.stdout.splitlines()[2:]] == ["2", "2"]


def test_a_broken_promise_is_seen(tmp_path):
    """An export that does not hold interrupts while it places files."""
    site = tmp_path / "sitecustomize.py"
    site.write_text("""
import contextlib, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "models.export":
            import core.interrupts
            core.interrupts.held_interrupts = contextlib.nullcontext
            import models.checkpoints.placing as placing
            placing.held_interrupts = contextlib.nullcontext
sys.meta_path.insert(0, Finder())
""")
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    done = subprocess.run([sys.executable, KILLS, "--count", "4", "--case",
                           "renames of hf --force"], capture_output=True, text=True, timeout=600,
                          env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 1 and "renames of hf --force, SIGINT: " in done.stderr
