"""Cuts large blocks of device memory into pieces, for drivers that allocate whole pages.

CUDA's pages are 2 MiB: allocated one by one, the weights of Qwen2.5-0.5B took 13% more than they
hold.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from core.errors import AllocationError

_ALIGNED = 512  # bytes


class Slab:
    """Cuts a block into pieces, one after another."""

    def __init__(self, handle: Any, pointer: int) -> None:  # noqa: ANN401 - the allocator's type
        self.handle, self.pointer, self.used, self.live = handle, pointer, 0, 0


class Piece:
    """Holds `nbytes` of a slab from `start` on."""

    def __init__(self, slab: Slab, nbytes: int) -> None:
        self.slab, self.start = slab, slab.used
        self.end = self.start + -(-nbytes // _ALIGNED) * _ALIGNED
        slab.used, slab.live = self.end, slab.live + 1


class Suballocator:
    """Cuts the blocks from `take(nbytes)`, a (handle, address) each, into pieces; `give` frees a
    handle.

    A piece goes to the first slab with room behind what was given from it. The room of a freed one
    comes back when it was the last of its slab, or when the slab is empty, which gives it back.
    """

    SLAB = 64 << 20  # bytes of a block
    LEAST, MOST = 1 << 20, SLAB // 2  # bytes of a piece; others are taken as they are

    def __init__(self, take: Callable[[int], tuple[Any, int]], give: Callable[[Any], None]) -> None:
        self._take, self._give = take, give
        self._slabs: list[Slab] = []

    def allocate(self, nbytes: int) -> tuple[Any, int]:
        """Return a (handle, address). Raises AllocationError as `take` does."""
        if not self.LEAST <= nbytes <= self.MOST:
            return self._take(nbytes)
        slab = next((s for s in self._slabs if self.SLAB - s.used >= nbytes), None)
        if slab is None:
            try:
                slab = Slab(*self._take(self.SLAB))
            except AllocationError:  # so little is left: perhaps enough for this alone
                return self._take(nbytes)
            self._slabs.append(slab)
        piece = Piece(slab, nbytes)
        return piece, slab.pointer + piece.start

    def free(self, handle: Any) -> None:  # noqa: ANN401
        """Take back what `allocate` gave."""
        if not isinstance(handle, Piece):
            return self._give(handle)
        slab = handle.slab
        slab.live -= 1
        if handle.end == slab.used:
            slab.used = handle.start
        if not slab.live:
            self._slabs.remove(slab)
            self._give(slab.handle)
        return None
