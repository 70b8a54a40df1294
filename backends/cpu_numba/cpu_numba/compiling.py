"""Compiles what a plan has bound, all at once, so that nothing compiles on the token path."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import numpy as np
from numba import from_dtype, typeof, types
from rich.console import Console

from core import Launch, held_interrupts
from cpu_numba import machine
from cpu_numba.caching import KEPT, KeptFunction
from cpu_numba.helpers import Helpers, Job
from cpu_numba.whole import kernels_whole

_LOCK = threading.RLock()
#: what was bound and is not compiled yet: launches by function and types
_waiting: dict[Job, list[weakref.ref[Any]]] = {}
_announced = False  # whether standard error was told


def bound(function: Any, *args: Any) -> Launch:  # noqa: ANN401 - a Numba dispatcher, what it takes
    """Return `function(*args)` as a launch: read from the cache on disk, or compiled by `settle`.

    It calls the entry point for these types itself: Numba's dispatcher would look up the types of
    all arguments at each call, and compile anew for a read-only (memory-mapped) weight.
    """
    key = function, *[(a.dtype, a.ndim, a.flags.c_contiguous) if type(a) is np.ndarray else _kind(a)
                      for a in args]
    if (entry := _entries.get(key)) is not None:
        return partial(entry, *args)
    signature = tuple(_type(a) for a in args)
    with _LOCK:
        if signature not in function.overloads and (function, signature) not in _waiting:
            function._cache = KeptFunction(function)
            if function._cache.finds(signature, function.targetctx):
                with held_interrupts():
                    function.compile(signature)
        if signature in function.overloads:
            _entries[key] = function.overloads[signature].entry_point
            return partial(_entries[key], *args)
        launch = partial(_first, function, signature, args)
        _waiting.setdefault((function, signature), []).append(weakref.ref(launch))
        return launch


def _first(function: Any, signature: tuple[types.Type, ...], args: tuple[Any, ...]) -> object:  # noqa: ANN401
    """Call what no plan has bound, or what `settle` could not compile: here that raises."""
    with _LOCK:
        _compile_one((function, signature))
    return function.overloads[signature].entry_point(*args)


def settle() -> None:
    """Compile all that waits, beside helpers where that pays, and turn the launches into calls of
    machine code."""
    with _LOCK:
        if not _waiting:
            return
        # a function of many arrays holds the most code: the longest work begins first
        jobs = sorted(_waiting, key=lambda job: len(repr(job[1])), reverse=True)
        with _progress(len(jobs)) as tell:
            with Helpers(jobs) as helpers:
                helpers.work(partial(_compile_one, looks=False), tell)
            for job in jobs:
                with suppress(Exception):  # its launch compiles again, and names the kernel
                    _compile_one(job)  # reads what a helper has compiled
        for function, signature in jobs:
            launches = _waiting.pop((function, signature))
            if signature in function.overloads:
                entry = function.overloads[signature].entry_point
                for launch in filter(None, (ref() for ref in launches)):
                    launch.__setstate__((entry, launch.args[2], {}, None))


def _compile_one(job: Job, *, looks: bool = True) -> None:
    function, signature = job
    if signature not in function.overloads:
        function._cache = KeptFunction(function, looks=looks)
        with held_interrupts(), kernels_whole(function):
            function.compile(signature)


#: entry points by function and kinds of arguments: Numba's own types take longer to make than all
#: else that a plan does
_entries: dict[tuple[Any, ...], Any] = {}


def _kind(value: Any) -> Any:  # noqa: ANN401
    """Return what decides a value's type: equal for values of equal `_type`."""
    if isinstance(value, np.ndarray):
        return value.dtype, value.ndim, value.flags.c_contiguous
    return (type(value), *map(_kind, value)) if isinstance(value, tuple) else type(value)


def _type(value: Any) -> types.Type:  # noqa: ANN401
    if isinstance(value, tuple):  # of arrays, numbers, or None for what is absent
        return types.BaseTuple.from_types([_type(v) for v in value],
                                          type(value) if hasattr(value, "_fields") else None)
    if not isinstance(value, np.ndarray):
        return typeof(value)
    if not value.flags.c_contiguous:
        raise ValueError(f"compiled kernels take contiguous arrays, got strides {value.strides}")
    return types.Array(from_dtype(value.dtype), value.ndim, "C")


@contextmanager
def _progress(count: int) -> Iterator[Callable[[int], None]]:
    """Say on standard error what is being compiled; the function hears how many are done."""
    console, kept = Console(stderr=True), "" if KEPT.unkept else (
        f", once; they are kept in {KEPT.folder}")
    global _announced
    if not _announced:
        _announced = True
        console.print(f"cpu_numba: compiling kernels for {machine.name()}{kept}", style="dim",
                      highlight=False, soft_wrap=True)
    said = f"cpu_numba: compiling {count} kernels"
    if not console.is_terminal:
        yield lambda done: None
        return
    with console.status(said) as status:
        yield lambda done: status.update(f"{said}, {done} done")
