"""Runs modules under a stand-in for PyCUDA."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def on_cpu(tmp_path_factory):
    """Run a module in a process in which the CPU stands in for the GPU; returns it with output."""
    folder = tmp_path_factory.mktemp("cuda_on_cpu")

    def run(*args: str, code: int = 0, script: str = ""):
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(
            [str(Path(__file__).parents[1] / "support"),
             *filter(None, [os.environ.get("PYTHONPATH")])])}
        how = ["-c", script] if script else ["-m", "cuda_on_cpu", *args]
        done = subprocess.run([sys.executable, *how], capture_output=True, text=True, cwd=folder,
                              env=env, timeout=560)
        assert done.returncode == code, done.stdout[-3000:] + done.stderr[-3000:]
        return done
    return run
