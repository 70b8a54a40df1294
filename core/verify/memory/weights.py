"""Finds changes of weights by sums of their pages."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np

from core.tensor.tensor import Array, Tensor

PAGE = 4096  # bytes of a weight that have one sum
_FACTORS = np.random.default_rng(0).integers(0, 2**63, PAGE // 8, dtype=np.uint64) * 2 + 1


class PageSums:
    """Keeps the sums of weights' pages from one look to the next, so that a look reads a weight
    once."""

    def __init__(self) -> None:
        self._kept: WeakKeyDictionary[Tensor, Array] = WeakKeyDictionary()

    def keep(self, tensor: Tensor, *, anew: bool) -> None:
        """Keep a weight's sums. Where there are some, `anew` takes them again."""
        if anew or tensor not in self._kept:
            self._kept[tensor] = page_sums(tensor)

    def changed(self, tensor: Tensor) -> int | None:
        """Return the first byte of the first page that has changed since the last look, None where
        none has. This look is then the last."""
        old, now = self._kept[tensor], page_sums(tensor)
        pages = np.flatnonzero(now != old)
        self._kept[tensor] = now
        return int(pages[0]) * PAGE if len(pages) else None


def page_sums(tensor: Tensor) -> Array:
    """Return a sum of each page's 64-bit words, every word times its place's own odd factor, as
    uint64 [pages]. One changed word always changes it; words that change places, or all alike, do
    too, but for one chance in 2**32 or less. It reads memory as fast as that comes."""
    flat = np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8)
    whole = flat.nbytes // PAGE * PAGE
    rest = np.zeros(PAGE, np.uint8)
    rest[:flat.nbytes - whole] = flat[whole:]
    sums = np.einsum("ij,j->i", flat[:whole].view(np.uint64).reshape(-1, PAGE // 8), _FACTORS)
    return np.append(sums, np.einsum("i,i->", rest.view(np.uint64), _FACTORS))
