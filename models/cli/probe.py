"""Examines a plugin in a process of its own, so that nothing it does can end the command.

The child imports the plugin, calls its hooks and opens its backends; it writes to a file how far it
has come. This module is the child's program too.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

LIMIT_S = 10.0  #: seconds that a plugin may take to be imported and to open its backends
_START_S = 60.0  # that Python may take before that, on a machine with much else to do
_ASK_S = 0.05  # between two looks at the child
_clock = time.monotonic
_BEGINS = "starting Python"
_WRITTEN, _SHOWN = 64 << 20, 64 << 10  # bytes of a file that the child may write, and of its output
_CHILD = ("import sys; sys.path[:] = sys.argv[2:]; "  # before anything is imported from a folder
          "from models.cli.probe import child; child(sys.argv[1])")


@dataclass(frozen=True)
class Probe:
    """Hold what a plugin did: seconds of its import (None: it did not end), and all its output."""

    seconds: float | None
    output: str
    reason: str | None


class Prober:
    """Examine entry points; `found` holds the results by the plugin's name."""

    def __init__(self, limit_s: float = LIMIT_S) -> None:
        self.limit_s = limit_s
        self.found: dict[str, Probe] = {}

    def __call__(self, entry: EntryPoint) -> str | None:
        """Return None, or why the plugin cannot be imported here."""
        self.found[entry.name] = probe = examine(entry, self.limit_s)
        return probe.reason


def examine(entry: EntryPoint, limit_s: float) -> Probe:
    """Import a plugin in a child process and kill that after `limit_s` seconds."""
    with tempfile.TemporaryDirectory() as folder:
        notes, log = Path(folder) / "notes.json", Path(folder) / "log"
        notes.write_text(json.dumps({"entry": [entry.name, entry.value, entry.group],
                                     "doing": _BEGINS, "seconds": None}))
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-c", _CHILD, str(notes), *sys.path], stdin=subprocess.DEVNULL,
                stdout=file, stderr=subprocess.STDOUT, start_new_session=os.name == "posix")
            try:
                how = _wait(process, notes, limit_s)
            finally:
                _kill(process)
        said = json.loads(notes.read_text())
        with log.open("rb") as file:
            output = file.read(_SHOWN).decode(errors="replace").strip()
    reason = None if said["doing"] is None else f"{how} while {said['doing']}, in a process apart"
    return Probe(said["seconds"], output, reason)


def _wait(process: subprocess.Popen[bytes], notes: Path, limit_s: float) -> str:
    """Wait for the child, and return how it ended or that it takes too long. The limit counts from
    the moment when Python runs in it and the plugin's import begins."""
    begun, starting, limit = _clock(), True, _START_S
    while True:
        try:
            return _ending(process.wait(_ASK_S))
        except subprocess.TimeoutExpired:
            now = _clock()
            if starting and json.loads(notes.read_text())["doing"] != _BEGINS:
                begun, starting, limit = now, False, limit_s
            if now - begun > limit:
                return f"took over {limit:g} s"


def child(path: str) -> None:
    """Import the plugin, call its hooks, open its backends; note each step in the file."""
    notes = Path(path)
    said: dict[str, Any] = json.loads(notes.read_text())

    def note(doing: str | None) -> None:
        said["doing"] = doing
        part = notes.with_suffix(".part")
        part.write_text(json.dumps(said))
        part.replace(notes)  # whole, whenever this process ends

    with suppress(ImportError, ValueError):  # Windows; a lower limit
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (_WRITTEN, _WRITTEN))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # it ends Python: an error could be caught
    from core.installed.loader import Plugins
    from core.installed.registry import OUR_BACKENDS, Registry
    from models import plugin  # noqa: F401 - what plugins of families import; not their time
    entry = EntryPoint(*said["entry"])
    note("it was imported")
    start = time.perf_counter()
    try:
        entry.load()
    except KeyboardInterrupt:
        raise
    except BaseException:  # the command meets the same error, and reports it
        return note(None)
    said["seconds"] = time.perf_counter() - start
    note("its hooks were called")
    registry = Registry(Plugins([entry]))
    registry.load_tables()
    for name in dict.fromkeys([*registry.specs, *OUR_BACKENDS]):
        if name in registry.specs:
            note(f"its backend {name} was opened")
            registry.unavailable(name)
        note(f"its kernels for {name} were registered")
        registry.plugins.collect("register_kernels", lambda *_: None, backend=name)
    note(None)


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended Python with exit code {code}"
    try:
        return f"ended Python by {signal.Signals(-code).name}"
    except ValueError:
        return f"ended Python by signal {-code}"


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the child, and what it has started, if it still runs."""
    try:
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    except OSError:  # all have ended
        pass
    process.wait()
