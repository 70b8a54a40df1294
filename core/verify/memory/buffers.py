"""Reads and writes bytes of buffers, wherever they are."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np

from core.plan.arena import POISON
from core.tensor.allocator import Buffer
from core.tensor.tensor import Array, Tensor


class Span:
    """Holds the bytes of a buffer from `first` to `last`, and looks at them again and again:
    through a view that is made once, where the host can read the buffer."""

    def __init__(self, buffer: Buffer, first: int, last: int) -> None:
        host = buffer.allocator.host_view(buffer)
        self.buffer, self.first, self.last = buffer, first, last
        self._view = None if host is None else host[first:last]
        self._poison = _poison(last - first)

    def read(self) -> Array:
        """Return the bytes: a view where the host can read them."""
        if self._view is not None:
            return self._view
        copy = np.empty(self.last - self.first, np.uint8)
        self.buffer.allocator.copy_to_host(self.buffer, copy, self.first)
        return copy

    def write(self, array: Array) -> None:
        """Overwrite the bytes."""
        self.buffer.allocator.copy_from_host(self.buffer, array, self.first)

    def fill(self, byte: int = POISON) -> None:
        """Give all of them this value."""
        if self._view is not None:
            self._view.fill(byte)
        else:
            self.write(np.full(self.last - self.first, byte, np.uint8))

    def damage(self) -> tuple[int, int] | None:
        """Return the range, counted from `first`, that holds no poison, and poison it again.
        Returns None where there is none."""
        found = self.read()
        if found.tobytes() == self._poison:
            return None
        at = np.flatnonzero(found != POISON)
        self.fill()
        return int(at[0]), int(at[-1]) + 1


class Watched:
    """Reads a tensor again and again: through a view that is made once, where the host can."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        host = tensor.buffer.allocator.host_view(tensor.buffer)
        self._view = None if host is None else tensor.numpy()

    def array(self) -> Array:
        """Return the contents as they are now; host memory is not copied."""
        return self.tensor.numpy() if self._view is None else self._view


class Spans:
    """Asks of many spans at once whether all hold poison; those that touch are read as one."""

    def __init__(self, spans: Iterable[Span]) -> None:
        ranges: dict[Buffer, list[tuple[int, int]]] = {}
        for span in spans:
            ranges.setdefault(span.buffer, []).append((span.first, span.last))
        found = [Span(buffer, *of) for buffer, some in ranges.items() for of in merged(some)]
        self._seen = [(s._view, s._poison) for s in found if s._view is not None]
        self._readable = len(self._seen) == len(found)

    def intact(self) -> bool:
        """Return True if all bytes hold poison, False where some do not, or the host cannot read
        them."""
        for view, poison in self._seen:
            if view.tobytes() != poison:
                return False
        return self._readable


@lru_cache(maxsize=256)
def _poison(nbytes: int) -> bytes:
    return bytes([POISON]) * nbytes


def merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the bytes of these ranges as ranges that neither overlap nor touch."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1]:
            first, last = found[-1][0], max(last, found.pop()[1])
        found.append((first, last))
    return found


def gaps(used: Iterable[tuple[int, int]], start: int, stop: int) -> list[tuple[int, int]]:
    """Return what is left of the bytes from `start` to `stop` without the ranges `used`."""
    found = []
    for first, last in [*sorted(used), (stop, stop)]:
        if min(first, stop) > start:
            found.append((start, min(first, stop)))
        start = max(start, last)
    return found
