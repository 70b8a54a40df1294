"""Measures the read bandwidth of the device's memory."""

from __future__ import annotations

from pycuda import driver

from core import cuda
from cuda_pycuda.device import device
from cuda_pycuda.launch import Counters, launch

_BYTES = 4 << 30  # many times any cache
_ROUNDS = 10


def measure() -> float:
    """Return bytes per second of the fastest of several passes over a large array."""
    gpu = device()
    free, _ = driver.mem_get_info()
    nbytes = min(_BYTES, free // 2) // 16 * 16
    data, out = Counters(nbytes // 4), Counters(1)
    run = launch("bandwidth.cu", "bandwidth", (4 * gpu.multiprocessors,), 512,
                 (data, out, cuda.Long(nbytes // 16)))
    best = float("inf")
    for _ in range(_ROUNDS):
        start, end = driver.Event(), driver.Event()
        start.record(gpu.stream)
        run()
        end.record(gpu.stream)
        end.synchronize()
        best = min(best, start.time_till(end) / 1000)
    return nbytes / best
