"""Imports one plugin in a process apart, and tells what it does there that a plugin may not.

A plugin is imported by every command, for each user: it has to be quick and silent, and leaves
what belongs to all of the process as it was.
"""

from __future__ import annotations

import builtins
import gc
import json
import locale
import logging
import os
import pickle
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from core.installed.choice import ALWAYS, PluginChoice
from core.installed.loader import Plugins
from core.installed.registry import Registry

CPU_S = 1.0  #: seconds of processor time that an import may take, with the plugin's hooks
_LIMIT_S = 60.0  # seconds after which the process is ended
_CHILD = ("import sys; found, *entry = sys.argv[1:5]; sys.path[:] = sys.argv[5:]; "
          "from core.conformance.apart.manners import child; child(found, *entry)")


def complaints(entry: EntryPoint) -> list[str]:
    """Return what is wrong with the manners of a plugin's module, nothing for a good one."""
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "told.json"
        try:
            done = subprocess.run(
                [sys.executable, "-c", _CHILD, str(told), entry.name, entry.value, entry.group,
                 *sys.path], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, timeout=_LIMIT_S, check=False)
        except subprocess.TimeoutExpired:
            return [f"takes over {_LIMIT_S:g} s to be imported"]
        if not told.exists():
            return [f"ends Python with exit code {done.returncode} while it is imported"]
        found: list[str] = json.loads(told.read_text())
    if output := done.stdout.decode(errors="replace").strip():
        found.append(f"prints while it is imported: {output[:200]!r}")
    return found


def child(told: str, *entry: str) -> None:
    """Import the plugin, and call the hooks that are called as plugins load. Write what changed."""
    Registry(Plugins(choice=PluginChoice.of([ALWAYS], ())))  # what plugins import of ours
    before, start = state(), time.process_time()
    plugins = Plugins([EntryPoint(*entry)])
    registry = Registry(plugins)
    registry.load_tables()
    took = time.process_time() - start
    found = [f"is broken: {b.reason}" for b in plugins.broken]
    found += changes(before, state())
    if took > CPU_S:
        found.append(f"takes {took:.1f} s of processor time to be imported, expected at most "
                     f"{CPU_S:g}: import what is slow where it is first used")
    Path(told).write_text(json.dumps(found))
    sys.stdout.flush()
    os._exit(0)  # whatever threads the plugin has left


def state() -> dict[str, Any]:
    """Return what belongs to the whole process, by a name for people, so that it compares."""
    mask = os.umask(0)
    os.umask(mask)
    return {
        "os.environ": dict(os.environ), "the current folder": os.getcwd(), "sys.path": [*sys.path],
        "the filters of warnings": [str(f) for f in warnings.filters], "the umask": mask,
        "the state of random": hash(random.getstate()),
        "the state of numpy.random": pickle.dumps(np.random.get_state()),
        "NumPy's error state": np.geterr(), "how NumPy prints": str(np.get_printoptions()),
        "handlers of signals": {s.name: id(signal.getsignal(s)) for s in signal.Signals
                                if s.name not in ("SIGKILL", "SIGSTOP")},
        "functions of numpy": _members(np), "builtins": _members(builtins),
        "sys.excepthook": id(sys.excepthook), "the standard streams": [
            id(s) for s in (sys.stdin, sys.stdout, sys.stderr)],
        "threads that run": [t.name for t in threading.enumerate()],
        "the recursion limit": sys.getrecursionlimit(), "the locale": locale.setlocale(
            locale.LC_ALL), "the garbage collector": (gc.isenabled(), gc.get_threshold()),
        "the root logger": (logging.root.level, len(logging.root.handlers))}


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return a line for each part of the state that is another one, with the names in it."""
    found = []
    for what, old in before.items():
        new = after[what]
        if isinstance(old, dict):
            names = sorted(k for k in {*old, *new} if old.get(k) != new.get(k))
            if what in ("functions of numpy", "builtins"):  # those that come later are loaded late
                names = [n for n in names if n in old]
            if names:
                found.append(f"changes {what}: {', '.join(names[:5])}")
        elif old != new:
            found.append(f"changes {what}")
    return found


def _members(module: ModuleType) -> dict[str, int]:
    return {name: id(value) for name, value in vars(module).items()
            if not name.startswith("__") and name != "_"}

