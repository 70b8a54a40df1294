"""Defines fixtures shared by the tests."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import models
from core.conformance.options import flag
from core.conformance.plugin import chosen_backends
from core.conformance.report import CHECK
from core.installed.registry import default_registry
from models.checkpoints.base import SHIPPED

#: of suites that tests start: see `addopts` in pyproject.toml
os.environ["PYTEST_ADDOPTS"] = f"{os.environ.get('PYTEST_ADDOPTS', '')} -p no:schemathesis"


@pytest.fixture(scope="session")
def story():
    """Return the default model, loaded once. Tests must leave its session usable."""
    with models.load("stories-llama2") as model:
        yield model


@pytest.fixture
def run_cli(tmp_path):
    """Run `python -m models.run` in a fresh process; returns it with text output."""
    def run(*args: str, stdin: str = "", path: str = "", code: int | None = None):
        paths = os.pathsep.join(filter(None, [path, os.environ.get("PYTHONPATH")]))
        env = {**os.environ, "PYTHONPATH": paths} if paths else dict(os.environ)
        done = subprocess.run([sys.executable, "-m", "models.run", *args], input=stdin,
                              capture_output=True, text=True, cwd=tmp_path, env=env, timeout=120)
        assert "Traceback" not in done.stderr, done.stderr
        if code is not None:
            assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return done
    return run


@pytest.fixture
def model_copy(tmp_path):
    """Return a copy of a shipped model that a test may damage."""
    def copy(name: str = "stories-llama2") -> Path:
        return Path(shutil.copytree(SHIPPED / name, tmp_path / name))
    return copy


@pytest.fixture
def on_gpu(request, record_property):
    """Return `on_gpu(backend)`: it skips the test unless --kernelyard-gpu-report asks for that
    backend, and returns a function that notes a text for the report, beside the outcome."""
    def ask(backend: str):
        config = request.config
        if config.getoption(flag("gpu-report")) is None:
            pytest.skip("needs a GPU: runs where --kernelyard-gpu-report asks for it")
        if backend not in chosen_backends(default_registry(), config.getoption(flag("backend")),
                                          gpu=True):
            pytest.skip(f"{backend} was not asked for, or is not available")
        found = {"backend": backend, "said": ""}
        record_property(CHECK, found)
        return lambda text: found.update(said=text)
    return ask
