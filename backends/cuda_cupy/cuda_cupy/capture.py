"""Captures steps that repeat into CUDA graphs."""

from __future__ import annotations

from core import Launch, cuda
from cuda_cupy.device import device, gpu


def record(launch: Launch) -> Launch:
    """Capture a step, and return its replay.

    Capturing queues nothing on the device, so the cache and the step's inputs stay as they are. The
    kernels' modules are loaded by binding, before this.
    """
    stream = device().stream
    with stream:
        stream.begin_capture()
        try:
            launch()
        finally:
            graph = cuda.Held(gpu, stream.end_capture())
    graph.thing.upload(stream)

    def replay() -> None:
        graph.thing.launch(stream)
    return replay
