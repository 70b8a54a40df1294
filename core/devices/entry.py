"""Lets any thread use the GPU that a process computes on.

A context is current in one thread, and all threads share the GPU's stream, staging memory and
slots for reads. So each use of the GPU is a `with` block, which one thread is in at a time.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from core.errors import AllocationError, BackendError
from core.plugins.backend import lost_by_fork

T = TypeVar("T")


class Entry:
    """Makes the GPU's context current in a `with` block; a block within another one costs little.

    Raises BackendError in a process that was forked after the GPU was opened: the driver refuses
    it there. Nothing of the library is freed in such a process, because that ends it.
    """

    backend: str
    #: of all libraries: what one thread does through two of them is never in another's way
    _alone = threading.RLock()

    def __init__(self) -> None:
        self.lost = ""  #: why this process cannot use the GPU, with the fix
        self._depth = 0
        self._given: deque[Callable[[], object]] = deque()
        self._kept: list[object] = []

    def enter(self) -> None:
        """Make the context current in this thread."""

    def leave(self) -> None:
        """Take back what `enter` did, in the same thread."""

    def check(self) -> None:
        """Raise BackendError in a forked process."""
        if self.lost:
            raise BackendError(self.lost)

    def __enter__(self) -> None:
        self.check()
        self._alone.acquire()
        try:
            if not self._depth:
                self.enter()
            self._depth += 1
        except BaseException:
            self._alone.release()
            raise

    def __exit__(self, *_: object) -> None:
        try:
            if self._depth == 1:
                self.drain()
        finally:
            self._depth -= 1
            try:
                if not self._depth:
                    self.leave()
            finally:
                self._alone.release()

    def later(self, give: Callable[[], object]) -> None:
        """Call `give`, which frees something, where no block is in the way: now or as one ends.

        It never waits for a thread, so finalizers may call it anywhere.
        """
        if self.lost:
            _leak(give)
            return
        self._given.append(give)
        if self._alone.acquire(blocking=False):
            try:
                with self:
                    pass
            finally:
                self._alone.release()

    def drain(self) -> bool:
        """Free what waits for it, in a block. Returns whether there was anything."""
        found = bool(self._given)
        while self._given:
            self._given.popleft()()
        return found

    def room(self, allocate: Callable[[], T]) -> T:
        """Return what `allocate` gives, in a block; where memory is short, free what waits first.

        Raises AllocationError as `allocate` does.
        """
        while True:
            try:
                return allocate()
            except AllocationError:
                if not self.drain():
                    raise

    def keep(self, thing: T) -> T:
        """Keep what belongs to the process until its end, as modules do, and return it."""
        self._kept.append(thing)
        return thing

    def ends_at_fork(self) -> None:
        """Refuse the GPU in every process forked from now on."""
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._in_child)

    def _in_child(self) -> None:
        self.lost = lost_by_fork(self.backend, "CUDA contexts")
        Entry._alone = threading.RLock()  # the thread that holds the other one is not here
        _end_at_once()
        _leak(self._kept)
        for give in self._given:
            _leak(give)


class Held:
    """Holds a library's object, and lets go of it as `Entry.later` does, whoever drops this."""

    def __init__(self, entry: Entry, thing: object) -> None:
        self._later, self._box = entry.later, [thing]

    @property
    def thing(self) -> Any:  # noqa: ANN401 - of any library
        """Return the object; who keeps it keeps it from being let go."""
        return self._box[0]

    def __del__(self) -> None:
        self._later(self._box.clear)


def _end_at_once() -> None:
    """End this process without the exit handlers of C libraries that are there by now: a driver's
    may wait for a thread that a fork left behind. Python's own, and its files, come first."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "on_exit"):  # glibc: it hands the exit code on
        libc.on_exit(ctypes.cast(libc._exit, ctypes.c_void_p), None)


def _leak(thing: object) -> None:
    """Let an object outlive the interpreter, so that its finalizer never runs."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
