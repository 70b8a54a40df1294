"""cpu_numba compiles what it cannot keep, and takes nothing from its cache that is not whole."""

import os
import random
import shutil
import subprocess
import sys

import pytest

NOBODY = 65534
ROOT = os.name == "posix" and os.geteuid() == 0
RUN = """
import sys
import numpy as np
from core import run_op
from core.errors import KernelyardError
x = np.arange(32, dtype=np.float32).reshape(2, 16)
assert np.array_equal(run_op("add", x, x, backend="cpu_numba"), 2 * x)
from cpu_numba.caching import KEPT
print(KEPT.hits, KEPT.misses)
"""
READABLE = not ROOT or subprocess.run(
    ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", sys.executable, "-c",
     "import core, numpy"], capture_output=True, cwd="/").returncode == 0
NOT_KEPT = "cpu_numba: compiled kernels are not kept, so each start compiles them again: "


def run(*command, code=0, without=(), unprivileged=False, **env):
    """Run in a fresh process; returns its output, and what it said."""
    variables = {k: v for k, v in {**os.environ, **env}.items() if k not in without}
    if unprivileged and ROOT and not READABLE:
        pytest.skip("the interpreter's packages lie where only their owner can read")
    start = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"] if (
        unprivileged and ROOT) else []
    done = subprocess.run([*start, sys.executable, *(command or ("-c", RUN))], text=True,
                          env=variables, capture_output=True, timeout=180)
    assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
    return done.stdout, done.stderr


@pytest.fixture
def kept(tmp_path):
    """Return a cache with one entry, as (its base, the entry)."""
    assert run(XDG_CACHE_HOME=str(tmp_path))[0] == "0 1\n"
    entry, = (tmp_path / "kernelyard/cpu_numba").iterdir()
    assert entry.parent.stat().st_mode & 0o777 == 0o700
    assert run(XDG_CACHE_HOME=str(tmp_path))[0] == "1 0\n"
    return tmp_path, entry


def test_a_damaged_entry_is_compiled_again(kept):
    base, entry = kept
    whole, rng = entry.read_bytes(), random.Random(3)
    at = rng.randrange(len(whole))
    flipped = whole[:at] + bytes([whole[at] ^ 1 << rng.randrange(8)]) + whole[at + 1:]
    for damaged in (b"", whole[:100], whole[:-1], flipped):
        entry.write_bytes(damaged)
        out, err = run(XDG_CACHE_HOME=str(base))
        assert out == "0 1\n" and NOT_KEPT not in err
        assert run(XDG_CACHE_HOME=str(base))[0] == "1 0\n", "a good one took its place"


def test_a_pickle_of_somebody_else_is_not_read(kept, tmp_path):
    base, entry = kept
    planted = b"cos\nsystem\n(S'touch " + str(tmp_path / "was-here").encode() + b"'\ntR."
    entry.write_bytes(planted)
    run(XDG_CACHE_HOME=str(base))
    assert not (tmp_path / "was-here").exists()


def test_a_folder_in_which_others_may_write_is_not_used(kept):
    base, entry = kept
    entry.parent.chmod(0o777)
    out, err = run(XDG_CACHE_HOME=str(base))
    assert out == "0 1\n" and err.count(NOT_KEPT) == 1 and "chmod 700" in err
    assert "they are kept in" not in err


def test_numba_cache_dir_is_followed(tmp_path):
    assert run(NUMBA_CACHE_DIR=str(tmp_path))[0] == "0 1\n"
    assert len(list((tmp_path / "kernelyard/cpu_numba").iterdir())) == 1


HOMES = {"none": {"without": ("HOME", "XDG_CACHE_HOME")},
         "not there": {"HOME": "/proc/nonexistent", "without": ("XDG_CACHE_HOME",)},
         "cache not there": {"XDG_CACHE_HOME": "/proc/nonexistent"}}


@pytest.mark.skipif(ROOT and not shutil.which("setpriv"), reason="needs a user without a home")
@pytest.mark.parametrize("home", HOMES)
def test_without_a_home(home):
    environment = HOMES[home]
    out, err = run(unprivileged=True, **environment)
    if home == "none" and not ROOT:
        pytest.skip("this user has a home without HOME")
    assert out == "0 1\n" and err.count(NOT_KEPT) == 1
    out, err = run("-m", "models.doctor", unprivileged=True, **environment)
    assert "cpu_numba" in out and "keeps compiled kernels in" not in out
    if home == "not there":
        out, err = run("-m", "models.run", "--backend", "cpu_numba,cpu_numpy", "--prompt", "Once",
                       "--max-new-tokens", "4", unprivileged=True, **environment)
        assert out.startswith("Once") and err.count(NOT_KEPT) == 1


@pytest.mark.skipif(ROOT and not shutil.which("setpriv"), reason="needs a user who may not write")
def test_a_cache_that_cannot_be_written(tmp_path):
    base = tmp_path / "cache"
    (base / "kernelyard/cpu_numba").mkdir(parents=True)
    owner = NOBODY if ROOT else os.geteuid()
    for folder in (base / "kernelyard/cpu_numba", base / "kernelyard", base):
        folder.chmod(0o500)
        if ROOT:
            os.chown(folder, owner, owner)
    for folder in tmp_path.parents:  # pytest's own are for their user alone
        if ROOT and folder.stat().st_uid == 0 and str(folder).startswith("/tmp/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    tmp_path.chmod(0o711)
    out, err = run(unprivileged=True, XDG_CACHE_HOME=str(base))
    assert out == "0 1\n" and err.count(NOT_KEPT) == 1 and "Permission denied" in err
