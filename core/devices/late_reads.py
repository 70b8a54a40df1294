"""Reads small tensors of a device through page-locked memory: queued now, waited for later."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from core.tensor.tensor import Array, Tensor

SLOTS, SLOT = 32, 1 << 15  # reads in flight, and bytes of one

#: Queues the copy of a tensor's bytes into slot `i`, which is the array; returns what waits for it
Copy = Callable[[int, Array, Tensor], Callable[[], object]]


class LateReads:
    """Keeps a ring of slots. A result that nobody has taken yet moves out of its slot before the
    slot is used again.

    memory  uint8 [SLOTS, SLOT], page-locked
    """

    def __init__(self, memory: Array, copy: Copy) -> None:
        self._memory, self._copy, self._next = memory, copy, 0
        self._held: list[Callable[[], Array] | None] = [None] * len(memory)

    def queue(self, tensor: Tensor) -> Callable[[], Array]:
        """Queue a copy of the present value; the result waits for it and returns it. A tensor that
        is larger than a slot is read now."""
        if tensor.nbytes > self._memory.shape[1] or not tensor.contiguous:
            value = np.array(tensor.numpy())
            return lambda: value
        i, self._next = self._next, (self._next + 1) % len(self._held)
        if (older := self._held[i]) is not None:
            older()
        slot = self._memory[i, :tensor.nbytes]
        wait, taken = self._copy(i, slot, tensor), list[Array]()

        def take() -> Array:
            if not taken:
                wait()
                taken.append(slot.copy().view(tensor.dtype.numpy).reshape(tensor.shape))
                self._held[i] = None
            return taken[0]
        self._held[i] = take
        return take
