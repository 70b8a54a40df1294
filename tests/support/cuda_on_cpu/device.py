"""Stands in for a GPU as cuda_pycuda sees it through PyCUDA: streams, events, memory, kernels.

Work is queued on streams, as on a GPU: nothing runs before somebody waits for it, so code that
forgets to wait reads poison.
"""

from __future__ import annotations

import ctypes
import itertools
import tempfile
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import ClassVar

import numpy as np

from cuda_on_cpu.contexts import Error, MemoryError_, Owned, check_context, forget, push

ALIGNMENT = 256


def pagelocked_empty(shape: object, dtype: object) -> np.ndarray:
    check_context()
    return np.empty(shape, dtype)


class Stream(Owned):
    """Holds a queue. Operations run, oldest first, when the host waits for one of them."""

    streams: ClassVar[weakref.WeakValueDictionary[int, Stream]] = (
        weakref.WeakValueDictionary())
    handles = itertools.count(1)

    def __init__(self, flags: int = 0) -> None:
        super().__init__()
        self.handle = next(self.handles)
        self.streams[self.handle] = self
        self.queue: list[Callable[[], object]] = []
        self.done = 0
        self.recording: list[Callable[[], object]] | None = None

    def put(self, operation: Callable[[], object]) -> None:
        check_context()
        (self.queue if self.recording is None else self.recording).append(operation)

    def run_to(self, mark: int) -> None:
        while self.done < mark:
            self.done += 1
            self.queue[self.done - 1]()
            self.queue[self.done - 1] = lambda: None

    def synchronize(self) -> None:
        check_context()
        if self.recording is not None:
            raise Error("a stream that is being captured cannot be waited for")
        self.run_to(len(self.queue))

    def record(self, event: Event) -> None:
        event.stream, event.mark = self, len(self.queue)

    def wait_for(self, event: Event) -> None:
        stream, mark = event.stream, event.mark
        if stream is not None:
            self.put(lambda: stream.run_to(mark))


class Event(Owned):
    def __init__(self, flags: int = 0) -> None:
        super().__init__()
        self.stream: Stream | None = None
        self.mark = 0

    def record(self, stream: Stream) -> Event:
        stream.record(self)
        return self

    def synchronize(self) -> Event:
        check_context()
        if self.stream is not None:
            self.stream.run_to(self.mark)
        return self

    def time_till(self, other: Event) -> float:
        return 1.0


class Allocation(Owned):
    """Allocates host memory full of NaN, aligned as a GPU's is."""

    def __init__(self, nbytes: int) -> None:
        super().__init__()
        self._bytes = np.full(nbytes + ALIGNMENT, 0xFF, np.uint8)
        self._address = -(-self._bytes.ctypes.data // ALIGNMENT) * ALIGNMENT

    def __int__(self) -> int:
        return self._address

    def free(self) -> None:
        check_context()
        for stream in Stream.streams.values():  # what is queued may still use it
            stream.queue.append(lambda kept=self._bytes: None)  # type: ignore[misc]
        self._bytes = None
        forget(self)


class DeviceMemoryPool(Owned):
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


class Module(Owned):
    def __init__(self, code: bytes) -> None:
        super().__init__()
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
        return SimpleNamespace(push=lambda: push(self))


def memcpy_htod_async(to: int, source: np.ndarray, stream: Stream) -> None:
    staged = source.tobytes()
    stream.put(lambda: ctypes.memmove(to, staged, len(staged)))


def memcpy_dtoh_async(target: np.ndarray, source: int, stream: Stream) -> None:
    stream.put(lambda: ctypes.memmove(target.ctypes.data, source, target.nbytes))


def memcpy_dtod_async(to: int, source: int, nbytes: int, stream: Stream) -> None:
    stream.put(lambda: ctypes.memmove(to, source, nbytes))


def memset_d8_async(to: int, value: int, nbytes: int, stream: Stream) -> None:
    stream.put(lambda: ctypes.memset(to, value, nbytes))
