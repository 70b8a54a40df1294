"""Reads small tensors: queued now, waited for later."""

from __future__ import annotations

from collections.abc import Callable

import cupy
import numpy as np
from cupy.cuda import runtime

from core import Tensor, cuda
from cuda_cupy.device import gpu as one_gpu


def late_reads(gpu: cuda.Gpu) -> cuda.LateReads:
    """Make the ring of page-locked slots that is read on the backend's stream."""
    nbytes = cuda.SLOTS * cuda.SLOT
    pinned = one_gpu.keep(cupy.cuda.alloc_pinned_memory(nbytes))
    memory = np.frombuffer(pinned, np.uint8, nbytes).reshape(cuda.SLOTS, cuda.SLOT)
    events = one_gpu.keep([cupy.cuda.Event(disable_timing=True) for _ in range(cuda.SLOTS)])

    def copy(i: int, slot: np.ndarray, tensor: Tensor) -> Callable[[], object]:
        runtime.memcpyAsync(slot.ctypes.data, tensor.pointer, slot.nbytes,
                            runtime.memcpyDeviceToHost, gpu.stream.ptr)
        events[i].record(gpu.stream)
        return events[i].synchronize
    return cuda.LateReads(memory, copy)
