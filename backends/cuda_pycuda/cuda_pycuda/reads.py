"""Reads small tensors: queued now, waited for later."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pycuda.driver as cuda

from core import Tensor
from cuda_pycuda.device import Device

_SLOTS, _SLOT = 8, 4096  # reads in flight, and bytes of one


class LateReads:
    """Keeps a ring of page-locked slots. A slot is used again after `_SLOTS` reads, so each result
    must be taken before as many more are queued."""

    def __init__(self, gpu: Device) -> None:
        self._stream = gpu.stream
        self._slots = cuda.pagelocked_empty((_SLOTS, _SLOT), np.uint8)
        self._events = [cuda.Event(cuda.event_flags.DISABLE_TIMING) for _ in range(_SLOTS)]
        self._next = 0

    def queue(self, tensor: Tensor) -> Callable[[], np.ndarray]:
        """Queue a copy of the present value; the result waits for it and returns it."""
        if tensor.nbytes > _SLOT or not tensor.contiguous:
            value = np.array(tensor.numpy())
            return lambda: value
        slot, event = self._slots[self._next][:tensor.nbytes], self._events[self._next]
        self._next = (self._next + 1) % _SLOTS
        cuda.memcpy_dtoh_async(slot, tensor.pointer, self._stream)
        event.record(self._stream)

        def wait() -> np.ndarray:
            event.synchronize()
            return slot.copy().view(tensor.dtype.numpy).reshape(tensor.shape)
        return wait
