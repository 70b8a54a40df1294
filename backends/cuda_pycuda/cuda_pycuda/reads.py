"""Reads small tensors: queued now, waited for later."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pycuda.driver as driver

from core import Tensor, cuda
from cuda_pycuda.device import Device
from cuda_pycuda.device import gpu as one_gpu


def late_reads(gpu: Device) -> cuda.LateReads:
    """Make the ring of page-locked slots that is read on the backend's stream."""
    memory = one_gpu.keep(driver.pagelocked_empty((cuda.SLOTS, cuda.SLOT), np.uint8))
    events = one_gpu.keep([driver.Event(driver.event_flags.DISABLE_TIMING)
                           for _ in range(cuda.SLOTS)])

    def copy(i: int, slot: np.ndarray, tensor: Tensor) -> Callable[[], object]:
        driver.memcpy_dtoh_async(slot, tensor.pointer, gpu.stream)
        events[i].record(gpu.stream)
        return events[i].synchronize
    return cuda.LateReads(memory, copy)
