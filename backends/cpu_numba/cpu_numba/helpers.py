"""Compiles in processes beside this one: Numba lets one thread of a process compile at a time.

A helper keeps what it compiles in the cache on disk, from which this process reads it. All take
their work from one pipe, a number a byte. What a helper has not done, for whatever reason, this
process compiles itself.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any

import numba
from numba.core.dispatcher import Dispatcher

from cpu_numba.caching import KEPT, KeptFunction, full_name
from cpu_numba.whole import kernels_whole

Job = tuple[Any, tuple[numba.types.Type, ...]]  # a Numba dispatcher, and types of its arguments

FEWEST = 4  # functions: fewer are compiled before a helper has imported Numba
MOST = 3  # helpers: the longest function takes a fifth of all, and a helper 250 MB
_PROGRAM = "import sys; sys.path[:] = {!r}; from cpu_numba.helpers import help; help()"


class Helpers:
    """Starts helpers for the first 256 of these jobs, and ends them when the block does."""

    def __init__(self, jobs: list[Job]) -> None:
        self._jobs, self._processes = jobs, list[subprocess.Popen[bytes]]()
        self._queue, feed = os.pipe()
        os.write(feed, bytes(range(min(len(jobs), 256))))
        os.close(feed)  # a reader then meets the end
        if len(jobs) < FEWEST or os.name != "posix" or not sys.executable or not _kept():
            return
        named = pickle.dumps([(full_name(function), types) for function, types in jobs])
        with suppress(OSError):  # no memory for another process, or one that ended at once
            for _ in range(min(numba.get_num_threads() - 1, MOST)):
                self._start(named)

    def _start(self, named: bytes) -> None:
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM.format(sys.path), str(self._queue)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            pass_fds=(self._queue,))
        self._processes.append(process)
        assert process.stdin is not None  # a pipe was asked for
        with process.stdin:
            process.stdin.write(named)

    def work(self, compile: Callable[[Job], None], tell: Callable[[int], None]) -> None:
        """Compile what no helper takes, then wait for the helpers. `tell` hears how many are
        done."""
        done = 0
        for done, job in enumerate(self._mine(), 1):
            with suppress(Exception):  # it stays undone
                compile(job)
            tell(done)
        for process in self._processes:
            for _ in process.stdout or ():  # a line a function
                done += 1
                tell(done)

    def _mine(self) -> Iterator[Job]:
        while number := os.read(self._queue, 1):
            yield self._jobs[number[0]]

    def __enter__(self) -> Helpers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        os.close(self._queue)
        for process in self._processes:
            process.terminate()
            with process:  # closes its pipes and waits
                pass


def _kept() -> bool:
    """Return whether this process can read what a helper compiles."""
    return not KEPT.unkept and os.access(KEPT.folder, os.W_OK)


def help() -> None:
    """Be a helper: compile what the pipe says until it is empty, and print a line for each."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that waits
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # leaves no part of a file
    queue = int(sys.argv[1])
    jobs, functions = pickle.load(sys.stdin.buffer), _functions()
    while number := os.read(queue, 1):
        name, types = jobs[number[0]]
        functions[name]._cache = KeptFunction(functions[name])
        with kernels_whole(functions[name]):
            functions[name].compile(types)
        print(name, flush=True)


def _functions() -> dict[str, Any]:
    """Return every function of the kernels by its full name."""
    from cpu_numba.kernels import kernels  # imports all of them
    assert kernels
    found = [v for name, module in sys.modules.items() for v in vars(module).values()
             if name.startswith("cpu_numba.kernels.compiled.")]
    found += [v for each in found if isinstance(each, dict) for v in each.values()]
    return {full_name(f): f for f in found if isinstance(f, Dispatcher)}
