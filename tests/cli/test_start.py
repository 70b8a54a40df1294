"""Ctrl-C while a command's modules are imported, or after its last line, is one line and 130."""

import os
import signal
import subprocess
import sys

import pytest

from models.__main__ import COMMANDS

#: raises SIGINT when Python looks for the module AT, or the AT-th after our first, or at exit
SITE = """
import atexit, os, signal, sys

class Finder:
    seen = -1

    def find_spec(self, name, path=None, target=None):
        if self.seen >= 0 or name == "kernelyard._start":
            self.seen += 1
        if os.environ["AT"] in (name, str(self.seen)):
            try:
                signal.raise_signal(signal.SIGINT)
                sum(range(9))
            except KeyboardInterrupt:
                if name == "numpy":  # whose C code does so
                    raise ImportError("could not import module") from None
                raise

sys.meta_path.insert(0, Finder())
atexit.register(signal.raise_signal, signal.SIGINT)
"""


@pytest.fixture
def start(tmp_path):
    """Return (exit code, standard error) of Python, which gets SIGINT."""
    (tmp_path / "sitecustomize.py").write_text(SITE)

    def started(at, *arguments):
        path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
        done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True,
                              env={**os.environ, "PYTHONPATH": path, "AT": str(at)}, timeout=60,
                              cwd=tmp_path, stdin=subprocess.DEVNULL,
                              preexec_fn=lambda: signal.signal(signal.SIGINT,
                                                               signal.default_int_handler))
        return done.returncode, done.stderr
    return started


@pytest.mark.parametrize(("command", "at"), [
    *(("run", at) for at in (1, 2, 40, "numpy", "models.run", "ended")),
    *((name, 40 * i) for i, name in enumerate(COMMANDS, 2) if name != "run")])
def test_a_command(start, command, at):
    assert start(at, "-m", f"models.{command}", "--help") == (130, "interrupted\n")


@pytest.mark.parametrize("at", [1, "numpy", "models.serve", "ended"])
def test_kernelyard(start, at):
    assert start(at, "-m", "kernelyard", "run", "--help") == (130, "interrupted\n")


def test_a_library_leaves_the_signal_alone(start):
    """A program of somebody else handles Ctrl-C as it likes, also as `python -m theirs`."""
    code = ("import os, signal; os.environ['AT'] = 'ended'; import kernelyard, models, core; "
            "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler; "
            "signal.signal(signal.SIGINT, signal.SIG_IGN)")
    assert start("ended", "-c", code) == (0, "")
