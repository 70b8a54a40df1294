"""cpu_numba compiles what a plan needs in processes side by side, and alone where they are no
help."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("numba", reason="cpu_numba needs numba")
FIRST = """
import gc, shutil, sys
import numpy as np
from numba.core.dispatcher import Dispatcher
from cpu_numba import compiling, helpers
from cpu_numba.caching import KEPT
from cpu_numba.kernels import kernels
from cpu_numba.kernels.compiled import rows

def four(dtype):
    x, ids = np.arange(32).astype(np.float32), np.array([1, 0], np.int32)
    if dtype == np.uint16:
        x = (x.view(np.uint32) >> 16).astype(np.uint16)  # bf16's bits: exact for these numbers
    elif dtype == np.int16:
        x = x.astype(np.float16).view(np.int16)
    outs = [np.zeros(32, np.int16), *(np.zeros(32, np.float32) for _ in range(3))]
    launches = [compiling.bound(rows.add, x, x, outs[0], 1, 32),  # to f16
                compiling.bound(rows.add, x, x, outs[1], 1, 32),
                compiling.bound(rows.gather, ids, x, outs[2], 2, 16),
                compiling.bound(rows.norm, x, np.ones(16, np.float32), outs[3], 2, 16,
                                np.float32(1))]
    return launches, outs

def right(launches, outs):
    for launch in launches:
        launch()
        assert launch.func.__module__ != "cpu_numba.compiling", "it calls machine code"
    x = np.arange(32).astype(np.float32)
    normed = x.reshape(2, 16) / np.sqrt((x.reshape(2, 16) ** 2).mean(-1, keepdims=True) + 1)
    first = outs[0].view(np.float16).astype(np.float32)
    wanted = 2 * x, 2 * x, np.roll(x, 16), normed.reshape(-1)
    for found, wanted in zip([first, *outs[1:]], wanted):
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
"""
CHECKS = {
    "every function has a name for helpers": """
bindable = {helpers.full_name(d) for d in gc.get_objects() if issubclass(type(d), Dispatcher)
            and d.py_func.__module__.startswith("cpu_numba.")
            and "no_cfunc_wrapper" in d.targetoptions and "_nrt" not in d.targetoptions}
bindable = {name for name in bindable if not name.endswith("_loop")}  # which others call
assert len(bindable) > 15 and bindable <= set(helpers._functions())
""",
    "helpers do all": """
mine, helpers.Helpers._mine = helpers.Helpers._mine, lambda self: iter(())
made = four(np.float32)
compiling.settle()
assert (KEPT.hits, KEPT.misses) == (4, 4) and not compiling._waiting
right(*made)
helpers.Helpers._mine = mine
""",
    "helpers that die": """
executable, sys.executable = sys.executable, shutil.which("false")
made = four(np.uint16)
compiling.settle()
assert (KEPT.hits, KEPT.misses) == (4, 8)
right(*made)
sys.executable = executable
""",
    "an interrupt ends them": """
made = four(np.int16)
jobs = list(compiling._waiting)
def interrupted(done):
    raise KeyboardInterrupt
try:
    with helpers.Helpers(jobs) as some:
        assert len(some._processes) == 1
        some.work(lambda job: None, interrupted)
except KeyboardInterrupt:
    pass
assert [p.returncode is None for p in some._processes] == [False]
""",
    "alone": """
KEPT.unkept = True  # nothing can be handed over
with helpers.Helpers(jobs) as some:
    assert not some._processes
compiling.settle()
right(*made)
"""}


def test_side_by_side(tmp_path):
    said = "".join(f"print({name!r})\n{code}" for name, code in CHECKS.items())
    done = subprocess.run([sys.executable, "-c", FIRST + said], text=True, capture_output=True,
                          env={**os.environ, "XDG_CACHE_HOME": str(tmp_path),
                               "NUMBA_CACHE_DIR": "", "NUMBA_NUM_THREADS": "2"}, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr.count("cpu_numba: compiling kernels for") == 1
    assert not list(tmp_path.rglob("*.part"))


def test_what_cannot_be_compiled_raises_where_it_is_called():
    import numpy as np

    from cpu_numba import compiling
    from cpu_numba.kernels.compiled import rows
    x = np.zeros(4, np.float32)
    launch = compiling.bound(rows.add, x, "text", x, 1, 4)
    compiling.settle()
    with pytest.raises(Exception, match="UnicodeType"):
        launch()
