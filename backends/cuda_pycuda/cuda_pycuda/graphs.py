"""Does through cuda-bindings, on PyCUDA's stream, what PyCUDA has no name for: graphs of steps
that repeat, and waiting for another library's stream."""

from __future__ import annotations

from typing import Any

from cuda.bindings import driver

from core import Launch
from core.errors import BackendError
from cuda_pycuda.device import device


def _check(answer: tuple[Any, ...]) -> Any:  # noqa: ANN401 - handles of several types
    status, *values = answer
    if int(status):
        raise BackendError(f"cuda_pycuda: the CUDA driver reports {status!r}")
    return values[0] if values else None


_DEPENDENT_LAUNCH = 90  # compute capability 9.0, from which kernels may start early


def _overlap(graph: Any) -> None:  # noqa: ANN401 - a handle
    """Let each kernel's blocks start while the kernel before it still runs. All kernels of a
    captured step are this backend's, and wait by themselves (`wait_for_previous` in cuda/ptx.cuh).
    PyCUDA cannot launch them so, but the graph's edges can say it (CUDA Driver API,
    CUgraphEdgeData)."""
    edges, add, remove = (getattr(driver, f"{name}_v2", None) or getattr(driver, name)  # CUDA 12's
                          for name in ("cuGraphGetEdges", "cuGraphAddDependencies",
                                       "cuGraphRemoveDependencies"))
    count = edges(graph, 0)[-1]
    status, before, after, _, _ = edges(graph, count)
    _check((status,))
    kernel = driver.CUgraphNodeType.CU_GRAPH_NODE_TYPE_KERNEL
    pairs = [pair for pair in zip(before[:count], after[:count], strict=True)
             if all(_check(driver.cuGraphNodeGetType(node)) == kernel for node in pair)]
    if not pairs:
        return
    data = driver.CUgraphEdgeData()
    data.type = driver.CUgraphDependencyType.CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC.value
    data.from_port = 1  # CU_GRAPH_KERNEL_NODE_PORT_PROGRAMMATIC
    ends = [list(nodes) for nodes in zip(*pairs, strict=True)]
    full = [driver.CUgraphEdgeData()] * len(pairs)
    _check(remove(graph, *ends, full, len(pairs)))
    _check(add(graph, *ends, [data] * len(pairs), len(pairs)))


def record(launch: Launch) -> Launch:
    """Capture a step, and return its replay.

    Capturing queues nothing on the device, so the cache and the step's inputs stay as they are. The
    kernels' modules are loaded by binding, before this.
    """
    stream = driver.CUstream(device().stream.handle)
    _check(driver.cuStreamBeginCapture(
        stream, driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL))
    try:
        launch()
    finally:
        graph = _check(driver.cuStreamEndCapture(stream))
    try:
        if device().arch >= _DEPENDENT_LAUNCH:
            _overlap(graph)
        ready = _check(driver.cuGraphInstantiate(graph, 0))
    finally:
        _check(driver.cuGraphDestroy(graph))
    _check(driver.cuGraphUpload(ready, stream))

    def replay() -> None:
        status, = driver.cuGraphLaunch(ready, stream)
        if int(status):
            raise BackendError(f"cuda_pycuda: replaying a step failed with {status!r}")
    return replay


def wait_for(other_stream: int) -> Launch:
    """Return a launch that makes this backend's stream wait for all that is queued on another."""
    ours, theirs = driver.CUstream(device().stream.handle), driver.CUstream(other_stream)
    event = _check(driver.cuEventCreate(int(driver.CUevent_flags.CU_EVENT_DISABLE_TIMING)))

    def wait() -> None:
        _check(driver.cuEventRecord(event, theirs))
        _check(driver.cuStreamWaitEvent(ours, event, 0))
    return wait
