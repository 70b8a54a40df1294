"""Stands in for what cuda_pycuda uses of PyCUDA and cuda-bindings.

Work is queued on streams, as on a GPU: nothing runs before somebody waits for it, so code that
forgets to wait reads poison. A context that is left on the stack aborts the process at its end.
"""

from __future__ import annotations

import atexit
import ctypes
import itertools
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import numpy as np

ALIGNMENT = 256
context_stack: list[object] = []


class Error(Exception):
    pass


class MemoryError_(Error):
    pass


class Stream:
    """Holds a queue. Operations run, oldest first, when the host waits for one of them."""

    streams: ClassVar[dict[int, Stream]] = {}
    handles = itertools.count(1)

    def __init__(self, flags: int = 0) -> None:
        self.handle = next(self.handles)
        self.streams[self.handle] = self
        self.queue: list[Callable[[], object]] = []
        self.done = 0
        self.recording: list[Callable[[], object]] | None = None

    def put(self, operation: Callable[[], object]) -> None:
        if not context_stack:
            raise Error("no context is current")
        (self.queue if self.recording is None else self.recording).append(operation)

    def run_to(self, mark: int) -> None:
        while self.done < mark:
            self.done += 1
            self.queue[self.done - 1]()
            self.queue[self.done - 1] = lambda: None

    def synchronize(self) -> None:
        if self.recording is not None:
            raise Error("a stream that is being captured cannot be waited for")
        self.run_to(len(self.queue))

    def record(self, event: Event) -> None:
        event.stream, event.mark = self, len(self.queue)

    def wait_for(self, event: Event) -> None:
        stream, mark = event.stream, event.mark
        if stream is not None:
            self.put(lambda: stream.run_to(mark))


class Event:
    def __init__(self, flags: int = 0) -> None:
        self.stream: Stream | None = None
        self.mark = 0

    def record(self, stream: Stream) -> Event:
        stream.record(self)
        return self

    def synchronize(self) -> Event:
        if self.stream is not None:
            self.stream.run_to(self.mark)
        return self

    def time_till(self, other: Event) -> float:
        return 1.0


class Allocation:
    """Allocates host memory full of NaN, aligned as a GPU's is."""

    def __init__(self, nbytes: int) -> None:
        self._bytes = np.full(nbytes + ALIGNMENT, 0xFF, np.uint8)
        self._address = -(-self._bytes.ctypes.data // ALIGNMENT) * ALIGNMENT

    def __int__(self) -> int:
        return self._address

    def free(self) -> None:
        for stream in Stream.streams.values():  # what is queued may still use it
            stream.queue.append(lambda kept=self._bytes: None)  # type: ignore[misc]
        self._bytes = None


class DeviceMemoryPool:
    managed_bytes = active_bytes = 0

    def allocate(self, nbytes: int) -> Allocation:
        if nbytes > 1 << 36:
            raise MemoryError_("out of memory")
        return Allocation(nbytes)

    def stop_holding(self) -> None:
        pass


class Function:
    """Calls a kernel of a shared library: its launcher takes the arguments' addresses."""

    def __init__(self, library: ctypes.CDLL, name: str) -> None:
        self._launch = getattr(library, f"launch_{name}")
        self._types: list[type] = []

    def prepare(self, kinds: list[str]) -> Function:
        table = {"P": ctypes.c_void_p, "i": ctypes.c_int, "q": ctypes.c_longlong,
                 "f": ctypes.c_float}
        self._types = [table[k] for k in kinds]
        return self

    def prepared_async_call(self, grid: tuple[int, ...], block: tuple[int, ...], stream: Stream,
                            *values: float) -> None:
        packed = [t(v) for t, v in zip(self._types, values, strict=True)]
        addresses = (ctypes.c_void_p * len(packed))(*(ctypes.addressof(p) for p in packed))
        sizes = (ctypes.c_uint * 3)(*grid)

        def run(kept: object = packed) -> None:
            self._launch(sizes, ctypes.c_uint(block[0]), addresses)
        stream.put(run)


class Module:
    def __init__(self, code: bytes) -> None:
        with tempfile.NamedTemporaryFile(suffix=".so") as file:
            file.write(code)
            file.flush()
            self._library = ctypes.CDLL(file.name)

    def get_function(self, name: str) -> Function:
        return Function(self._library, name)


class Device:
    def __init__(self, index: int) -> None:
        self.index = index

    @staticmethod
    def count() -> int:
        return 1

    def name(self) -> str:
        return "a CPU in place of a GPU"

    def compute_capability(self) -> tuple[int, int]:
        return (9, 0)

    def get_attribute(self, attribute: object) -> int:
        return 4  # multiprocessors: few, so that small inputs are split as large ones are on a GPU

    def retain_primary_context(self) -> SimpleNamespace:
        return SimpleNamespace(push=lambda: context_stack.append(self))


def memcpy_htod_async(to: int, source: np.ndarray, stream: Stream) -> None:
    staged = source.tobytes()
    stream.put(lambda: ctypes.memmove(to, staged, len(staged)))


def memcpy_dtoh_async(target: np.ndarray, source: int, stream: Stream) -> None:
    stream.put(lambda: ctypes.memmove(target.ctypes.data, source, target.nbytes))


def memcpy_dtod_async(to: int, source: int, nbytes: int, stream: Stream) -> None:
    stream.put(lambda: ctypes.memmove(to, source, nbytes))


def memset_d8_async(to: int, value: int, nbytes: int, stream: Stream) -> None:
    stream.put(lambda: ctypes.memset(to, value, nbytes))


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
    if context_stack:
        print("the context stack was not empty upon module cleanup", file=sys.stderr, flush=True)
        os._exit(134)


def install() -> None:
    """Put the stand-ins where `import` finds them."""
    atexit.register(_clean_up)
    driver = _module(
        "pycuda.driver", init=lambda: None, Device=Device, Stream=Stream, Event=Event, Error=Error,
        MemoryError=MemoryError_, get_driver_version=lambda: 13000,
        Context=SimpleNamespace(pop=context_stack.pop), module_from_buffer=Module,
        memcpy_htod_async=memcpy_htod_async, memcpy_dtoh_async=memcpy_dtoh_async,
        memcpy_dtod_async=memcpy_dtod_async, memset_d8_async=memset_d8_async,
        pagelocked_empty=np.empty, mem_get_info=lambda: (1 << 26, 1 << 26),
        device_attribute=SimpleNamespace(MULTIPROCESSOR_COUNT=16),
        event_flags=SimpleNamespace(DISABLE_TIMING=2))
    tools = _module("pycuda.tools", DeviceMemoryPool=DeviceMemoryPool)
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
