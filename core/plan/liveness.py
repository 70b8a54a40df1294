"""Lay buffers out by liveness: values that are never alive together share bytes."""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass

from core.tensor.allocator import ALIGNMENT


@dataclass(frozen=True)
class Lifetime:
    """A buffer is needed from step `first` to step `last`, both included."""

    nbytes: int
    first: int
    last: int


@dataclass(frozen=True)
class Layout:
    """Hold offsets in one arena of `peak` bytes; `total` is what separate buffers would take."""

    offsets: tuple[int, ...]
    peak: int
    total: int


def lay_out(lifetimes: list[Lifetime], guard: int = 0) -> Layout:
    """Place buffers largest first, each into the lowest gap free during its lifetime.

    Greedy by size (Pisarchyk and Lee 2020, https://arxiv.org/abs/2001.03288). `guard` bytes stay
    unused on both sides of each buffer.
    """
    sizes = [_align(life.nbytes + 2 * guard) for life in lifetimes]
    offsets = [0] * len(lifetimes)
    placed: list[tuple[int, int, int, int]] = []  # by offset: where it begins, ends; first, last
    for i in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        life, size, offset = lifetimes[i], sizes[i], 0
        for begin, end, first, last in placed:
            together = life.first <= last and first <= life.last
            if together and offset < end and begin < offset + size:
                offset = end
        offsets[i] = offset
        insort(placed, (offset, offset + size, life.first, life.last))
    peak = max((end for _, end, _, _ in placed), default=0)
    return Layout(tuple(o + guard for o in offsets), peak, sum(sizes))


def _align(nbytes: int) -> int:
    return -(-max(nbytes, 1) // ALIGNMENT) * ALIGNMENT
