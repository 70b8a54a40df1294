"""Measures the read bandwidth of the device's memory."""

from __future__ import annotations

import cupy

from core import cuda
from cuda_cupy.device import device
from cuda_cupy.launch import launch

_BYTES = 4 << 30  # many times any cache
_ROUNDS = 10


def measure() -> float:
    """Return bytes per second of the fastest of several passes over a large array."""
    gpu = device()
    free, _ = cupy.cuda.runtime.memGetInfo()
    nbytes = min(_BYTES, free // 2) // 16 * 16
    with gpu.stream:
        data, out = cupy.zeros(nbytes, "uint8"), cupy.zeros(1, "int32")
    run = launch("bandwidth.cu", "read_all", (4 * gpu.multiprocessors,), 512,
                 (data, out, cuda.Long(nbytes // 16)), defines={})
    best = float("inf")
    for _ in range(_ROUNDS):
        events = [cupy.cuda.Event() for _ in range(2)]
        events[0].record(gpu.stream)
        run()
        events[1].record(gpu.stream)
        events[1].synchronize()
        best = min(best, cupy.cuda.get_elapsed_time(*events) / 1000)
    return nbytes / best
