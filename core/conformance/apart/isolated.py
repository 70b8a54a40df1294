"""Runs the suite's tests in a process apart: one that ends it, or never returns, fails by name.

The process lives from test to test. After a crash, or where a kernel broke the device, the next
test gets a new one.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from core import isolation
from core.conformance.options import OPTIONS, flag
from core.errors import worded
from core.isolation import Notes, Watch, check_limit, ending, stop

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

_ASK_S = 0.05  # seconds between two looks at the notes


@dataclass
class Ended:
    """Holds how a test ended, what it said, and what it recorded as properties."""

    outcome: str
    said: str = ""
    properties: list[tuple[str, object]] = field(default_factory=list)
    spent: bool = False  #: the process can use its device no longer


class Isolated:
    """Is the part of the pytest plugin that runs the suite's tests in the other process."""

    def __init__(self, config: pytest.Config, suites: Mapping[str, tuple[str, ...]]) -> None:
        self._limit = check_limit(config.getoption(flag("step-timeout")), True)
        self._options = {flag(name): config.getoption(flag(name)) for name in OPTIONS}
        self._suites = suites
        self._worker: _Worker | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> bool | None:
        """Run a test of the suite, and end here as it ended there."""
        module = pyfuncitem.function.__module__
        kind = next((k for k in self._suites.get(module, ()) if k in pyfuncitem.funcargs), None)
        if kind is None:
            return None
        worker = self._worker = self._worker or _Worker(self._options, self._limit)
        ended = worker.run(module, pyfuncitem.function.__name__, kind,
                           pyfuncitem.callspec.id)
        if ended.spent or worker.dead:
            worker.close()
            self._worker = None
        if worker.dead:
            ended.properties.append(_dead(pyfuncitem.funcargs[kind], worker.kernel))
        pyfuncitem.user_properties.extend(ended.properties)
        if ended.outcome == "skipped":
            pytest.skip(ended.said)
        if ended.outcome == "failed":
            pytest.fail(ended.said, pytrace=False)
        return True

    def pytest_sessionfinish(self) -> None:
        if self._worker is not None:
            self._worker.close()


def _dead(test: Any, kernel: str) -> tuple[str, object]:  # noqa: ANN401 - of the kind that it is
    """Return what the report is told of a test that ended its process."""
    from core.conformance import report
    from core.conformance.cases import Case
    from core.conformance.trials import PropertyCase
    if isinstance(test, Case):
        found = report.case_facts(test)
        name = kernel.partition(":")[2]
        return report.CASE, {**found, "used": None, "kernels": {
            name: {"ok": False, "used": None}} if name else {}}
    if isinstance(test, PropertyCase):
        return report.PROPERTY, report.property_facts(test)
    return "kernelyard-dead", True


class _Worker:
    """Holds the other process, from the side that waits."""

    def __init__(self, options: Mapping[str, Any], limit_s: float) -> None:
        self._limit = limit_s
        self._folder = tempfile.TemporaryDirectory()
        self._notes = Notes.create(Path(self._folder.name))
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_work, daemon=True, args=(
            theirs, str(self._notes.path), dict(options), sys.path))
        self._process.start()
        theirs.close()
        self.dead = False
        self.kernel = ""  #: that a dead process was in

    def run(self, *test: str) -> Ended:
        """Run one test: module, function, kind of its parameter, the parameter's id."""
        try:
            self._pipe.send(test)
            watch = Watch(self._notes, self._limit)
            while not self._pipe.poll(_ASK_S):
                if watch.late():
                    stop(self._process.pid or 0, self._process.join)
                    return self._end(f"took over {watch.limit:g} s")
            found: Ended = self._pipe.recv()
            return found
        except (EOFError, OSError):  # it has ended
            self._process.join()
            return self._end(ending(self._process.exitcode or 0))

    def _end(self, how: str) -> Ended:
        self.dead = True
        note = self._notes.note
        self.kernel = note.kernel if note is not None else ""
        said = self._notes.told(how)
        return Ended("failed", said)

    def close(self) -> None:
        self._pipe.close()  # what ends a living one
        self._process.join(2)
        self._process.kill()
        self._process.join()
        self._folder.cleanup()


class _Config:
    """Answers for pytest's configuration in the other process."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options

    def getoption(self, name: str) -> Any:  # noqa: ANN401 - by the option
        return self._options[name]


def _work(pipe: Connection, notes: str, options: Mapping[str, Any], path: list[str]) -> None:
    """Run tests as they are asked for, until nobody asks any more. The other process's program."""
    sys.path[:] = path
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that waits is interrupted
    from core.conformance.apart.devices import note_failure
    from core.conformance.plugin import registry_of, tests_of
    isolation.begin(Path(notes))
    config: Any = _Config(options)
    tests: dict[str, dict[str, Any]] = {}
    while True:
        try:
            module, function, kind, id = pipe.recv()
        except EOFError:
            os._exit(0)  # whatever threads a plugin has left
        if kind not in tests:
            tests[kind] = dict(tests_of(kind, config))
        ended = Ended("passed")
        known = {kind: tests[kind][id], "pytestconfig": config,
                 "record_property": lambda *pair, e=ended: e.properties.append(pair)}
        test = getattr(importlib.import_module(module), function)
        names = test.__code__.co_varnames[:test.__code__.co_argcount]
        try:
            test(**{name: known[name] for name in names})
        except pytest.skip.Exception as error:
            ended.outcome, ended.said = "skipped", str(error)
        except pytest.fail.Exception as error:
            ended.outcome, ended.said = "failed", str(error)
        except BaseException as error:
            ended.outcome, ended.said = "failed", worded(error)
        ended.spent = ended.outcome == "failed" and note_failure(registry_of(config), ended.said)
        pipe.send(ended)
