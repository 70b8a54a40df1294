"""A forked child says that a backend's threads are gone, and goes on with one that keeps none."""

import os
import subprocess
import sys

import pytest

CHAIN = "cpu_numba,cpu_numpy"
POSIX = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

START = """
import multiprocessing, os, sys, warnings
warnings.simplefilter("ignore")  # Python warns of a fork with threads
import models
from core import run_op
from core.errors import BackendError
import numpy as np

model = models.load("stories-llama2", backend={backend!r})
expected = model.generate("Once upon a time", max_new_tokens=8).run().tokens
rows = np.ones((64, 512), np.float32)
product = lambda _=0: run_op("linear", rows, np.ones((512, 512), np.float32), None,
                             out_dtype="f32", backend={backend!r}.split(",")[0])
product()

def loaded(_=0):
    with models.load("stories-llama2", backend={backend!r}) as new:
        return new.generate("Once upon a time", max_new_tokens=8).run().tokens

def going_on(_=0):
    return model.generate("Once upon a time", max_new_tokens=8).run().tokens

def said(what):
    try:
        return "fine" if np.all(np.isfinite(what(0))) else "wrong"
    except BackendError as error:
        return str(error)
"""
FORK = START + """
for what in (going_on, loaded, product):
    child = os.fork()
    if not child:
        print(said(what), flush=True)
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert going_on() == expected
print("parent fine")
"""
POOL = START + """
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(*pool.map(said, [going_on, loaded]), sep="\\n")
assert going_on() == expected
print("parent fine")
"""


@POSIX
@pytest.mark.parametrize("way", [FORK, POOL], ids=["fork", "pool"])
@pytest.mark.parametrize("backend", ["cpu_numpy", CHAIN])
def test_a_forked_child(way, backend):
    done = subprocess.run([sys.executable, "-c", way.format(backend=backend)],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    *children, parent = done.stdout.splitlines()
    assert parent == "parent fine" and len(children) == (3 if way is FORK else 2)
    for child in children:
        if backend == "cpu_numpy":
            assert child == "fine"
        else:
            assert child.startswith("backend cpu_numba cannot be used in a forked process: its "
                                    "threads stay with its parent; fix: ") and "spawn" in child


@POSIX
def test_a_child_may_open_the_backend_first():
    code = ("import multiprocessing\n" + START.split("model = ")[0]
            + START[START.index("def loaded"):START.index("def going_on")]
            + "print(len(multiprocessing.get_context('fork').Pool(1).map(loaded, [0])[0]))")
    done = subprocess.run([sys.executable, "-c", code.format(backend=CHAIN)],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout == "8\n", done.stderr
