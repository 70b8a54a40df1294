"""Compiles when a kernel binds, so that nothing compiles on the token path."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from numba import from_dtype, typeof, types
from numba.core import event
from rich.console import Console

from core import Launch, held_interrupts
from cpu_numba import machine
from cpu_numba.caching import KEPT, KeptFunction


def bound(function: Any, *args: Any) -> Launch:  # noqa: ANN401 - a Numba dispatcher, what it takes
    """Return `function(*args)` as a launch: compiled now, or read from the cache on disk.

    It calls the entry point for these types itself: Numba's dispatcher would look up the types of
    all arguments at each call, and compile anew for a read-only (memory-mapped) weight.
    """
    key = function, *map(_kind, args)
    if key not in _entries:
        signature = tuple(_type(a) for a in args)
        if signature not in function.overloads:
            function._cache = KeptFunction(function)
            with held_interrupts(), _progress(function.__name__):
                function.compile(signature)
        _entries[key] = function.overloads[signature].entry_point
    return partial(_entries[key], *args)


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
def _progress(name: str) -> Iterator[None]:
    """Says on standard error what is being compiled, unless it comes from the cache."""
    listener = _Listener(name)
    with event.install_listener("numba:compile", listener):
        try:
            yield
        finally:
            listener.status.stop()


class _Listener(event.Listener):
    """Numba tells it of real compilations only."""

    announced = False

    def __init__(self, name: str) -> None:
        self.console = Console(stderr=True)
        self.status = self.console.status(f"cpu_numba: compiling {name}")

    def on_start(self, event: event.Event) -> None:
        if not _Listener.announced:
            _Listener.announced = True
            kept = "" if KEPT.unkept else f", once; they are kept in {KEPT.folder}"
            self.console.print(f"cpu_numba: compiling kernels for {machine.name()}{kept}",
                               style="dim", highlight=False, soft_wrap=True)
        if self.console.is_terminal:
            self.status.start()

    def on_end(self, event: event.Event) -> None:
        pass
