"""Every reader on damaged files: our own errors, within five seconds and 700 MB each.

FUZZ_CASES and FUZZ_SEED choose other mutants by hand, such as FUZZ_CASES=3000 FUZZ_SEED=7. What was
found so far has names in test_hard_headers.py.
"""

import importlib.util
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import fuzzing
import pytest

CASES, SEED = int(os.environ.get("FUZZ_CASES", "300")), int(os.environ.get("FUZZ_SEED", "1"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Start a process for each reader, two at a time; returns its future."""
    folder = tmp_path_factory.mktemp("fuzz")
    pool = ThreadPoolExecutor(2)

    def run(name):
        where = folder / name.replace(" ", "-")
        where.mkdir()
        done = subprocess.run(
            [sys.executable, fuzzing.__file__, name, str(SEED), "0", str(CASES), str(where)],
            capture_output=True, text=True, timeout=60 + CASES * fuzzing.SECONDS,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                 "PYTHONWARNINGS": "ignore"})
        return done.returncode, done.stdout.splitlines(), done.stderr
    yield {name: pool.submit(run, name) for name in fuzzing.READERS if _available(name)}
    pool.shutdown(cancel_futures=True)


def _available(name):
    return name not in fuzzing.NEEDS or importlib.util.find_spec(fuzzing.NEEDS[name]) is not None


@pytest.mark.parametrize("name", fuzzing.READERS)
def test_only_our_errors(name, runs):
    if name not in runs:
        pytest.skip(f"needs the package {fuzzing.NEEDS[name]}")
    code, said, err = runs[name].result()
    faults = [line for line in said if line.startswith("fault")]
    assert not faults, "\n".join(faults)
    assert code == 0, f"the process ended with {code} in {said[-1:]}: {err[-600:]}"
    assert said[-1].startswith("peak") and sum(line.startswith("case") for line in said) == CASES
    peak = int(said[-1].split()[1])
    assert peak < fuzzing.MEGABYTES, said[-1]


PLANTED = """
import itertools, sys, time
import fuzzing

calls = itertools.count()


def read(path):
    number = next(calls)  # 0 is the good file
    if number == 1:
        raise KeyError("planted")
    if number == 2:
        b"x" * (1 << 31)
    if number == 3:
        time.sleep(9)


def make(folder):
    (folder / "a.json").write_text("{}")
    return folder / "a.json", [folder / "a.json"]


fuzzing.SECONDS, fuzzing.READERS["planted"] = 1, (make, read)
fuzzing.main("planted", 1, 0, 4, sys.argv[1])
"""


def test_a_fault_is_seen(tmp_path):
    """The harness reports a traceback, memory and time: without that it could not fail."""
    done = subprocess.run([sys.executable, "-c", PLANTED, tmp_path], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
    said = [line for line in done.stdout.splitlines() if line.startswith("fault")]
    for line, kind in zip(said, ("KeyError", "MemoryError", "TooLongError", "took"),
                          strict=True):
        assert kind in line
