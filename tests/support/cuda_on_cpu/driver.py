"""Puts stand-ins for PyCUDA and cuda-bindings, over `device`, where cuda_pycuda imports them from.

A context that is left on the stack aborts the process at its end.
"""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

from cuda_on_cpu import contexts, device
from cuda_on_cpu.device import Event, Stream

# cuda-bindings: every call returns its status first


def cuStreamBeginCapture(stream: int, mode: object) -> tuple[int]:
    Stream.streams[stream].recording = []
    return (0,)


def cuStreamEndCapture(stream: int) -> tuple[int, list]:
    recorded, Stream.streams[stream].recording = Stream.streams[stream].recording, None
    return (0, recorded)


def cuGraphGetEdges(graph: list, room: int) -> tuple[int, list, list, list, int]:
    return (0, [], [], [], 0)  # the stream's order is kept: nothing here runs at the same time


def cuGraphLaunch(graph: list, stream: int) -> tuple[int]:
    for operation in graph:
        Stream.streams[stream].put(operation)
    return (0,)


def cuEventRecord(event: Event, stream: int) -> tuple[int]:
    event.record(Stream.streams[stream])
    return (0,)


def cuStreamWaitEvent(stream: int, event: Event, flags: int) -> tuple[int]:
    Stream.streams[stream].wait_for(event)
    return (0,)


def _clean_up() -> None:
    """Clean up, as PyCUDA does when its module is torn down."""
    if any(contexts.stacks):
        print("the context stack was not empty upon module cleanup", file=sys.stderr, flush=True)
        os._exit(134)


def install() -> None:
    """Put the stand-ins where `import` finds them."""
    atexit.register(_clean_up)
    driver = _module(
        "pycuda.driver", init=lambda: None, Device=device.Device, Stream=Stream, Event=Event,
        Error=contexts.Error, MemoryError=contexts.MemoryError_, get_driver_version=lambda: 13000,
        Context=SimpleNamespace(pop=contexts.pop), module_from_buffer=device.Module,
        memcpy_htod_async=device.memcpy_htod_async, memcpy_dtoh_async=device.memcpy_dtoh_async,
        memcpy_dtod_async=device.memcpy_dtod_async, memset_d8_async=device.memset_d8_async,
        mem_alloc=device.Allocation, pagelocked_empty=device.pagelocked_empty,
        mem_get_info=lambda: (contexts.check_context(), (1 << 26, 1 << 26))[1],
        device_attribute=SimpleNamespace(MULTIPROCESSOR_COUNT=16),
        event_flags=SimpleNamespace(DISABLE_TIMING=2))
    tools = _module("pycuda.tools", DeviceMemoryPool=device.DeviceMemoryPool)
    _module("pycuda", driver=driver, tools=tools, VERSION_TEXT="(stand-in)", __path__=[])
    bindings = _module(
        "cuda.bindings.driver", CUstream=int, cuStreamBeginCapture=cuStreamBeginCapture,
        cuStreamEndCapture=cuStreamEndCapture, cuGraphLaunch=cuGraphLaunch,
        cuGraphInstantiate=lambda graph, flags: (0, graph), cuGraphDestroy=lambda graph: (0,),
        cuGraphGetEdges=cuGraphGetEdges, cuGraphAddDependencies=None,
        cuGraphRemoveDependencies=None,
        CUgraphNodeType=SimpleNamespace(CU_GRAPH_NODE_TYPE_KERNEL=0),
        cuGraphUpload=lambda graph, stream: (0,), cuEventCreate=lambda flags: (0, Event()),
        cuEventRecord=cuEventRecord, cuStreamWaitEvent=cuStreamWaitEvent,
        CUstreamCaptureMode=SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL=1),
        CUevent_flags=SimpleNamespace(CU_EVENT_DISABLE_TIMING=2))
    with suppress(ImportError):
        import cuda.bindings  # noqa: F401 - the rest of it stays
    if "cuda" not in sys.modules:
        _module("cuda", __path__=[])
    package = sys.modules.get("cuda.bindings") or _module("cuda.bindings", __path__=[])
    package.driver = bindings  # type: ignore[attr-defined]


def _module(name: str, **contents: object) -> ModuleType:
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    vars(module).update(contents)
    sys.modules[name] = module
    return module


def use(folder: Path) -> None:
    """Install the stand-ins and g++ as the compiler, with libraries made in `folder`."""
    install()
    from cuda_on_cpu.toolchain import toolchain
    from cuda_pycuda import compiler
    tool = toolchain(folder)
    compiler.compiler = lambda: tool  # type: ignore[assignment]
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
