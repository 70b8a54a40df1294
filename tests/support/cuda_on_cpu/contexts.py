"""Stands in for contexts: each thread has a stack of its own, and a forked process has none.

As with PyCUDA, what is freed in a thread without the context is lost, and what is freed in a forked
process ends it.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref

import numpy as np

stacks: list[list[object]] = []  # a thread's contexts each, of all threads there were


class Error(Exception):
    pass


class MemoryError_(Error):
    pass


class _Thread(threading.local):
    """Holds a thread's stack of contexts: a new thread has none."""

    def __init__(self) -> None:
        self.stack: list[object] = []
        stacks.append(self.stack)


_thread = _Thread()
_forked: list[bool] = []


def _in_child() -> None:
    _forked.append(True)
    stacks[:] = [_thread.stack]  # the other threads are not here


os.register_at_fork(after_in_child=_in_child)


def check_context() -> None:
    """Raise as the driver does in a thread without a context, and in a forked process."""
    if _forked:
        raise Error("initialization error")
    if not _thread.stack:
        raise Error("invalid device context - no currently active context?")


def push(context: object) -> None:
    if _forked:
        raise Error("initialization error")
    _thread.stack.append(context)


def pop() -> None:
    check_context()
    _thread.stack.pop()


def _ended(_: object, forked=_forked, local=_thread, threads=threading, os=os) -> None:
    if forked:
        os.write(2, b"terminate: something was freed in a forked process\n")
        os._exit(134)
    if not local.stack and threads.current_thread() is not threads.main_thread():
        os.write(2, b"something was leaked by a thread\n")


_watched: list[object] = []  # lives as long as the interpreter
ctypes.pythonapi.Py_IncRef(ctypes.py_object(_watched))


class Owned:
    """Belongs to a context. Like PyCUDA's, the finalizer ends a forked process, and in a thread
    other than the main one it frees nothing unless the context is current there."""

    def __init__(self) -> None:
        check_context()
        # an array, because the collector of cycles does not see it, nor what PyCUDA makes
        self.mark = np.empty(0)
        _watched.append(weakref.ref(self.mark, _ended))


def forget(freed: Owned) -> None:
    """Let something end that has been freed by its name."""
    _watched.append(freed.mark)
