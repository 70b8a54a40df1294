"""The suite in pytest: loaded by name, never by itself; `kernelyard conform` is the short way."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.conformance.options import OPTIONS, flag
from models import conform

ROOT = Path(__file__).parents[2]
CONFTEST = '''
def pytest_addoption(parser):
    for name in ("--backend", "--op", "--report", "--time"):
        parser.addoption(name)
'''
ASKED = ["-p", "core.conformance.plugin", "--pyargs", "core.conformance",
         "--kernelyard-backend", "cpu_numpy", "--kernelyard-op", "add"]


def run_pytest(folder, *arguments, path=None):
    env = {**os.environ, **({} if path is None else {"PYTHONPATH": path})}
    return subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
                           *arguments], cwd=folder, env=env, text=True, capture_output=True,
                          timeout=120, check=False)


def test_no_entry_point_loads_it():
    text = (ROOT / "pyproject.toml").read_text()
    assert "pytest11" not in text and '[project.entry-points."kernelyard.plugins"]' in text
    assert all(flag(name).startswith("--kernelyard-") for name in OPTIONS)


def test_another_project_starts_as_without_us(tmp_path):
    """A project with its own `core` and with options of our short names must not notice us."""
    (tmp_path / "core").mkdir()
    (tmp_path / "core/__init__.py").write_text("OURS = False")
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text(
        "import core\ndef test(pytestconfig):\n    assert core.OURS is False\n"
        "    assert pytestconfig.getoption('--backend') == 'x'\n")
    installed = os.pathsep.join(p for p in sys.path if p)
    done = run_pytest(tmp_path, "--backend", "x", path=os.pathsep.join([str(tmp_path), installed]))
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout + done.stderr


def test_it_works_beside_such_options(tmp_path):
    (tmp_path / "conftest.py").write_text(CONFTEST)
    done = run_pytest(tmp_path, *ASKED, "--kernelyard-report", "r.json", "--backend", "x")
    assert done.returncode == 0 and "cpu_numpy" in done.stdout, done.stdout + done.stderr
    assert set(json.loads((tmp_path / "r.json").read_text())["matrix"]["cpu_numpy"]) == {"add"}


def test_without_the_plugin_it_says_so(tmp_path):
    done = run_pytest(tmp_path, "--pyargs", "core.conformance")
    assert done.returncode == pytest.ExitCode.INTERRUPTED, "while collecting"
    assert "pytest -p core.conformance.plugin --pyargs core.conformance" in done.stdout


def test_conform_ignores_the_folder(tmp_path):
    """The current folder's configuration and conftest are another project's."""
    (tmp_path / "conftest.py").write_text("raise RuntimeError('not ours')")
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    done = subprocess.run([sys.executable, "-m", "kernelyard", "conform", "--backend", "cpu_numpy",
                           "--op", "add", "-q", "--", "-x"], cwd=tmp_path, text=True, timeout=120,
                          capture_output=True, check=False)
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout + done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["conftest.py", "pytest.ini"]


@pytest.mark.parametrize(("options", "complaint"), [
    (["extra"], "'extra' is no option; options for pytest follow --"),
    (["--without-plugin", "nobody"], "--without-plugin nobody: no such plugin"),
    (["--only-plugins", "models"], "no installed backend is available")])
def test_conform_refuses_bad_options(options, complaint, capfd):
    assert conform.main(options) == 2
    assert complaint in "".join(capfd.readouterr())


def test_conform_has_every_option():
    taken = {o for a in conform.parser()._actions for o in a.option_strings}
    assert {f"--{name}" for name in OPTIONS} <= taken
