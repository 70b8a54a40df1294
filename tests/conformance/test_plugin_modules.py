"""The conformance test of a plugin's module finds each thing that a plugin may not do."""

import re
import sys
from importlib.metadata import EntryPoint

import pytest
from plugin_site import install

from core.conformance.apart import manners

FINE = """
from core import hookimpl
KERNELYARD_API = 2
@hookimpl
def register_models(register):
    pass
"""
RUDE = {
    "prints": ("print('hello')", "prints while it is imported: .*hello"),
    "speaks": ("import os; os.system('echo hello')", "prints while it is imported: .*hello"),
    "environ": ("import os; os.environ['OMP_NUM_THREADS'] = '1'",
                "changes os.environ: OMP_NUM_THREADS"),
    "folder": ("import os; os.chdir('/')", "changes the current folder"),
    "path": ("import sys; sys.path.append('/x')", "changes sys.path"),
    "warnings": ("import warnings; warnings.simplefilter('ignore')", "the filters of warnings"),
    "random": ("import random; random.seed(0)", "changes the state of random"),
    "numpy_random": ("import numpy; numpy.random.seed(0)", "the state of numpy.random"),
    "seterr": ("import numpy; numpy.seterr(all='ignore')", "NumPy's error state: divide"),
    "signal": ("import signal; signal.signal(signal.SIGINT, signal.SIG_DFL)",
               "changes handlers of signals: SIGINT"),
    "patch": ("import numpy; numpy.exp = numpy.log", "changes functions of numpy: exp"),
    "builtin": ("import builtins; builtins.print = None", "changes builtins: print"),
    "thread": ("import threading, time\n"
               "threading.Thread(target=time.sleep, args=(999,), name='mine').start()",
               "changes threads that run"),
    "logger": ("import logging; logging.basicConfig()", "changes the root logger"),
    "slow": ("import time\nwhile time.process_time() < 3: pass",
             "of processor time to be imported"),
    "exits": ("import os; os._exit(4)", "ends Python with exit code 4 while it is imported"),
    "raises": ("raise SystemExit(0)", "is broken: SystemExit: 0"),
    "hook": (FINE.replace("    pass", "    1 / 0"), "is broken: ZeroDivisionError")}


@pytest.fixture
def complaints(tmp_path, monkeypatch):
    def found(source):
        install(tmp_path / "site", "some-plugin", "some", source)
        monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *sys.path])
        return manners.complaints(EntryPoint("some", "some_plugin", "kernelyard.plugins"))
    return found


def test_a_polite_plugin_passes(complaints):
    assert complaints(FINE) == []


@pytest.mark.parametrize("kind", RUDE)
def test_a_rude_plugin_is_told(kind, complaints):
    source, said = RUDE[kind]
    (found,) = complaints(source if "KERNELYARD_API" in source else f"{FINE}\n{source}\n")
    assert re.search(said, found), found


def test_names_that_come_later_are_no_change():
    before = {"functions of numpy": {"exp": 1}, "os.environ": {"A": "1"}}
    after = {"functions of numpy": {"exp": 1, "late": 2}, "os.environ": {"A": "1", "B": "2"}}
    assert manners.changes(before, after) == ["changes os.environ: B"]
