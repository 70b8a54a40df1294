"""--deterministic and --lock: test the rules that restrict the choice of kernels, with their
reasons."""

import json
import os
import subprocess
import sys
from importlib.metadata import EntryPoint, entry_points

import numpy as np
import pytest
import toy_backend
from example_backend import install

import models
from core.conformance.report import Counts, Report
from core.conformance.rules.lock import Lock, write_lock
from core.errors import LockError, NoKernelError
from core.installed.discovery import GROUP
from core.installed.loader import Plugins
from core.installed.registry import Registry
from core.plugins.kernel import KernelSet

ADD = '''
@kernels.implements("add", dtypes={"A": "f32"})
def add(a, b, out):
    return partial(np.add, a, b, out)
'''


def registry_with(**options):
    """Return the installed plugins, and a kernel of cpu_numpy's `add` that is tried first."""
    registry = Registry()
    kernels = KernelSet("cpu_numpy")

    @kernels.implements("add", dtypes={"A": "f32"}, name="racy", **options)
    def racy(a, b, out):
        def launch():
            np.add(a, b * np.float32(1 + 1e-7 * np.random.rand()), out=out)
        return launch

    (kernel,) = kernels
    registry.kernels("cpu_numpy", "add").insert(0, kernel)
    registry.sources[kernel] = "test 1.0"
    return registry


@pytest.mark.parametrize(("declared", "reason"), [
    (False, "--deterministic: declares that equal inputs may give other bits"),
    (True, "--deterministic: declares equal bits, but 4 runs of add-cpu_numpy-float32-")])
def test_kernels_that_do_not_repeat_are_refused(declared, reason):
    registry = registry_with(deterministic=declared)
    with models.load("stories-llama2", registry=registry, fusion=False) as model:
        assert "cpu_numpy:racy" in {e.kernel for e in model.ledger.entries}
    with models.load("stories-llama2", registry=registry, fusion=False,
                     deterministic=True) as model:
        adds = [e for e in model.ledger.entries if e.op == "add"]
        assert adds and all(e.kernel == "cpu_numpy:add" for e in adds)
        assert all(dict(e.refused)["cpu_numpy:racy"].startswith(reason) for e in adds)
    with pytest.raises(NoKernelError, match="cpu_numpy:racy: --deterministic"):
        models.load("stories-llama2", registry=registry, deterministic=True, fusion=False,
                    kernels=["add=cpu_numpy:racy"])


def test_deterministic_on_the_command_line(run_cli):
    done = run_cli("--deterministic", "--max-new-tokens", "4", "--explain", code=0)
    assert "cpu_numpy:attention" in done.stderr


@pytest.fixture(scope="module")
def lock(tmp_path_factory):
    """Return a lock of cpu_numpy, with verdicts as a run would give them."""
    registry, report = Registry(), Report()
    report.devices["cpu_numpy"] = "here"
    for kernel in registry.kernels("cpu_numpy"):
        report.matrix.setdefault("cpu_numpy", {})
        report._kernel("cpu_numpy", kernel.op, kernel.name).passed = 3
    report.kernels["cpu_numpy"]["swiglu"]["swiglu"] = Counts(passed=2, failed=1)
    path = tmp_path_factory.mktemp("lock") / "kernelyard.lock"
    write_lock(path, report, registry)
    return path


def edited(lock, tmp_path, edit):
    stored = json.loads(lock.read_text())
    edit(stored)
    path = tmp_path / "kernelyard.lock"
    path.write_text(json.dumps(stored))
    return path


def test_a_locked_run(lock, run_cli):
    done = run_cli("--lock", str(lock), "--max-new-tokens", "4", code=0)
    assert done.stdout.startswith("Once upon a time")


def test_a_kernel_that_failed_is_not_chosen(lock):
    with pytest.raises(NoKernelError, match=r"cpu_numpy:swiglu: .*kernelyard.lock says of it: "
                                            "failed 1"):
        models.load("stories-llama2", lock=lock, fusion=False)


@pytest.mark.parametrize(("edit", "complaint"), [
    (lambda s: s["packages"]["cpu_numpy"]["sources"].update({"kernels/linear.py": "0" * 64}),
     "cpu_numpy/kernels/linear.py has changed"),
    (lambda s: s["packages"]["cpu_numpy"]["sources"].update(old="1"), "cpu_numpy/old is gone"),
    (lambda s: s["packages"]["cpu_numpy"]["sources"].pop("backend.py"), "backend.py is new"),
    (lambda s: s["packages"]["cpu_numpy"].update(distribution="kernelyard-cpu-numpy 0.0.9"),
     "is kernelyard-cpu-numpy .*, locked was kernelyard-cpu-numpy 0.0.9"),
    (lambda s: s["kernels"].pop("rope"), "kernel cpu_numpy:rope for rope is new"),
    (lambda s: s["kernels"]["rope"].update({"cpu_numpy:gone": {"verdict": "passed"}}),
     "kernel cpu_numpy:gone for rope is gone"),
    (lambda s: s.update(format=7), "lock format 7, expected 1"),
    (lambda s: s.pop("kernels"), "cannot be read as a lock file"),
    (lambda s: s.update(packages=[]), "cannot be read as a lock file")])
def test_a_changed_kernel_is_an_error_that_names_it(lock, tmp_path, run_cli, edit, complaint):
    path = edited(lock, tmp_path, edit)
    with pytest.raises(LockError, match=complaint) as caught:
        models.load("stories-llama2", lock=path)
    if "cannot" not in complaint and "format" not in complaint:
        assert "kernelyard conform --backend cpu_numpy --write-lock" in str(caught.value)


def test_a_missing_lock_is_bad_input(run_cli, lock):
    done = run_cli("--lock", "nowhere.lock", code=2)
    assert "nowhere.lock cannot be read as a lock file" in done.stderr
    registry = Registry(Plugins([*entry_points(group=GROUP),
                                 EntryPoint("toy", "toy_backend", GROUP)]))
    assert toy_backend.kernels
    with pytest.raises(LockError, match="it holds no kernel of toy"):
        Lock.read(lock).check(registry, ["cpu_numpy", "toy"])


def test_the_suite_writes_it(tmp_path):
    """A run of the whole suite must write it, a model require it, and an edit invalidate it."""
    site = install(tmp_path / "site", ADD)
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": path}
    run = subprocess.run([sys.executable, "-m", "models.conform", "-q", "--backend", "example",
                          "--write-lock", "kernelyard.lock"], cwd=tmp_path, env=env, text=True,
                         capture_output=True, timeout=120)
    assert run.returncode == 0, run.stdout
    stored = json.loads((tmp_path / "kernelyard.lock").read_text())
    assert stored["kernels"] == {"add": {"example:add": {
        "verdict": "passed", "samples": 8,
        "budget_used": stored["kernels"]["add"]["example:add"]["budget_used"]}}}
    assert set(stored["packages"]["example"]["sources"]) == {"__init__.py", "backend.py",
                                                             "plugin.py"}
    code = ("from pathlib import Path; from core.conformance.rules.lock import Lock; "
            "from core.installed.registry import Registry; "
            "Lock.read(Path('kernelyard.lock')).check(Registry(), ['example'])")
    check = [sys.executable, "-c", code]
    assert subprocess.run(check, cwd=tmp_path, env=env, timeout=60).returncode == 0
    (site / "example/backend.py").write_text((site / "example/backend.py").read_text() + "\n")
    changed = subprocess.run(check, cwd=tmp_path, env=env, text=True, capture_output=True,
                             timeout=60)
    assert "example/backend.py has changed" in changed.stderr
