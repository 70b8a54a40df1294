"""Reads and writes bytes of buffers, wherever they are."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from core.tensor.allocator import Buffer
from core.tensor.tensor import Array


def read_bytes(buffer: Buffer, first: int, last: int) -> Array:
    """Return these bytes of a buffer, wherever it is: a view where the host can read them."""
    host = buffer.allocator.host_view(buffer)
    if host is not None:
        return host[first:last]
    copy = np.empty(last - first, np.uint8)
    buffer.allocator.copy_to_host(buffer, copy, first)
    return copy


def write_bytes(buffer: Buffer, first: int, array: Array) -> None:
    """Write bytes into a buffer, wherever it is."""
    buffer.allocator.copy_from_host(buffer, array, first)


def gaps(used: Iterable[tuple[int, int]], start: int, stop: int) -> list[tuple[int, int]]:
    """Return what is left of the bytes from `start` to `stop` without the ranges `used`."""
    found = []
    for first, last in [*sorted(used), (stop, stop)]:
        if min(first, stop) > start:
            found.append((start, min(first, stop)))
        start = max(start, last)
    return found
