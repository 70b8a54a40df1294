"""Lay buffers out by liveness: values that are never alive together share bytes."""

from __future__ import annotations

from dataclasses import dataclass

from core.tensor.allocator import ALIGNMENT

FAR = 7  # guards that lie at each end of an arena, beside those of its buffers


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
    unused on both sides of each buffer, and `FAR` times as many at both ends of the arena, so that
    what goes far beyond a buffer stays in it.
    """
    ends = FAR * guard
    sizes = [_align(life.nbytes + 2 * guard) for life in lifetimes]
    offsets = [0] * len(lifetimes)
    #: by step: where buffers begin and end
    taken: list[list[tuple[int, int]]] = [[] for _ in range(
        1 + max((life.last for life in lifetimes), default=-1))]
    for i in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        steps, offset, size = taken[lifetimes[i].first:lifetimes[i].last + 1], 0, sizes[i]
        for begin, end in sorted(set().union(*steps)):
            if offset < end and begin < offset + size:
                offset = end
        offsets[i], place = offset, (offset, offset + size)
        for places in steps:
            places.append(place)
    peak = max((o + size for o, size in zip(offsets, sizes, strict=True)), default=0) + 2 * ends
    return Layout(tuple(o + guard + ends for o in offsets), peak, sum(sizes))


def _align(nbytes: int) -> int:
    return -(-max(nbytes, 1) // ALIGNMENT) * ALIGNMENT
