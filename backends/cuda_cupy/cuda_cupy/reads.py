"""Reads small tensors: queued now, waited for later."""

from __future__ import annotations

from collections.abc import Callable

import cupy
import numpy as np
from cupy.cuda import runtime

from core import Tensor, cuda

_SLOTS, _SLOT = 8, 4096  # reads in flight, and bytes of one


class LateReads:
    """Keeps a ring of page-locked slots. A slot is used again after `_SLOTS` reads, so each result
    must be taken before as many more are queued."""

    def __init__(self, gpu: cuda.Gpu) -> None:
        self._stream = gpu.stream
        self._memory = cupy.cuda.alloc_pinned_memory(_SLOTS * _SLOT)
        self._bytes = np.frombuffer(self._memory, np.uint8, _SLOTS * _SLOT)
        self._events = [cupy.cuda.Event(disable_timing=True) for _ in range(_SLOTS)]
        self._next = 0

    def queue(self, tensor: Tensor) -> Callable[[], np.ndarray]:
        """Queue a copy of the present value; the result waits for it and returns it."""
        if tensor.nbytes > _SLOT or not tensor.contiguous:
            value = np.array(tensor.numpy())
            return lambda: value
        slot, self._next = self._next, (self._next + 1) % _SLOTS
        event, start = self._events[slot], slot * _SLOT
        runtime.memcpyAsync(self._memory.ptr + start, tensor.pointer, tensor.nbytes,
                            runtime.memcpyDeviceToHost, self._stream.ptr)
        event.record(self._stream)

        def wait() -> np.ndarray:
            event.synchronize()
            found = self._bytes[start:start + tensor.nbytes].copy()
            return found.view(tensor.dtype.numpy).reshape(tensor.shape)
        return wait
