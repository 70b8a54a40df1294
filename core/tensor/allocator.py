"""Device memory: says who owns which bytes, and refuses access to freed ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.errors import AllocationError, BoundsError, LifetimeError
from core.reading import shown

ALIGNMENT = 256  # bytes; what CUDA's allocator gives, and several AVX-512 lines
Bytes = np.ndarray[tuple[int], np.dtype[np.uint8]]


@dataclass
class AllocatorStats:
    """Counts the bytes and buffers that an allocator has handed out, without borrowed memory."""

    allocated: int = 0
    peak: int = 0
    live: int = 0
    total_allocations: int = 0


class Buffer:
    """Holds a run of bytes on one device: its own (freed at `free()` or collection) or borrowed
    ones.

    `handle` is whatever the allocator works with (an array, a pool's memory pointer); `pointer` is
    the address as an integer; `keepalive` is what a borrowed buffer must keep from being collected.
    """

    def __init__(self, allocator: DeviceAllocator, handle: Any, pointer: int, nbytes: int,  # noqa: ANN401 - each allocator has its own handle type
                 *, owned: bool, keepalive: object = None) -> None:
        self.allocator = allocator
        self.pointer = pointer
        self.nbytes = nbytes
        self.owned = owned
        self._handle = handle
        self._keepalive = keepalive
        self._alive = True

    @property
    def alive(self) -> bool:
        return self._alive

    @property
    def handle(self) -> Any:  # noqa: ANN401
        if not self._alive:
            raise LifetimeError(f"buffer of {self.nbytes} bytes on {self.allocator.device} was "
                                "used after free(); keep its owner open while you use its tensors")
        return self._handle

    def free(self) -> None:
        """Give the bytes back. Raises LifetimeError on the second call."""
        if not self._alive:
            raise LifetimeError(f"buffer of {self.nbytes} bytes on {self.allocator.device} was "
                                "freed twice; free it where it was allocated, once")
        self._release()

    def _release(self) -> None:
        self._alive = False
        handle, self._handle, self._keepalive = self._handle, None, None
        if self.owned:
            self.allocator._forget(self.nbytes)
            self.allocator._free(handle)

    def __del__(self) -> None:
        if getattr(self, "_alive", False):
            self._release()


class DeviceAllocator(ABC):
    """Allocates memory of one device. Public methods check; a backend writes the underscore
    methods.

    A backend's `_allocate` should take from its device library's pool: pools are that library's
    job. Offsets and sizes are in bytes; host arrays are contiguous.
    """

    #: Where the memory is: "cpu", "cuda:0". Backends with equal `device` share tensors by pointer.
    device: str
    #: True where `_allocate` returns zero bytes anyway, so that untouched pages cost nothing.
    allocates_zeros = False

    def __init__(self) -> None:
        self.stats = AllocatorStats()

    # what users call

    def allocate(self, nbytes: int) -> Buffer:
        """Return a new buffer; contents undefined. Raises AllocationError with what was asked
        for."""
        if not isinstance(nbytes, (int, np.integer)) or not 0 <= nbytes < 2**63:
            raise AllocationError(f"cannot allocate {shown(nbytes)} bytes on {self.device}: "
                                  "expected a whole number of 63 bits")
        handle, pointer = self._allocate(nbytes)
        stats = self.stats
        stats.allocated += nbytes
        stats.peak = max(stats.peak, stats.allocated)
        stats.live += 1
        stats.total_allocations += 1
        return Buffer(self, handle, pointer, nbytes, owned=True)

    def allocate_zeroed(self, nbytes: int) -> Buffer:
        """Return a new buffer of zero bytes."""
        buffer = self.allocate(nbytes)
        if not self.allocates_zeros:
            self._zero(buffer)
        return buffer

    def copy_from_host(self, dst: Buffer, src: np.ndarray[Any, Any], offset: int = 0) -> None:
        """Copy a contiguous host array into `dst` at `offset`."""
        self._check(dst, offset, src.nbytes, "copy_from_host")
        self._copy_from_host(dst, offset, _as_bytes(src))

    def copy_to_host(self, src: Buffer, dst: np.ndarray[Any, Any], offset: int = 0) -> None:
        """Fill a contiguous host array from `src` at `offset`; complete when it returns."""
        self._check(src, offset, dst.nbytes, "copy_to_host")
        self._copy_to_host(src, offset, _as_bytes(dst))

    def copy(self, dst: Buffer, src: Buffer, nbytes: int, dst_offset: int = 0,
             src_offset: int = 0) -> None:
        """Copy within this device."""
        self._check(dst, dst_offset, nbytes, "copy (to)")
        self._check(src, src_offset, nbytes, "copy (from)")
        self._copy(dst, dst_offset, src, src_offset, nbytes)

    def zero(self, buffer: Buffer) -> None:
        """Set all bytes to zero."""
        self._check(buffer, 0, buffer.nbytes, "zero")
        self._zero(buffer)

    def synchronize(self) -> None:  # noqa: B027 - optional: a CPU has nothing to wait for
        """Wait until everything queued on the device is done. Nothing to do on a CPU."""

    # what a backend writes

    @abstractmethod
    def _allocate(self, nbytes: int) -> tuple[Any, int]:
        """Return (handle, address)."""

    @abstractmethod
    def _free(self, handle: Any) -> None: ...  # noqa: ANN401

    @abstractmethod
    def _copy_from_host(self, dst: Buffer, offset: int, src: Bytes) -> None: ...

    @abstractmethod
    def _copy_to_host(self, src: Buffer, offset: int, dst: Bytes) -> None: ...

    @abstractmethod
    def _copy(self, dst: Buffer, dst_offset: int, src: Buffer, src_offset: int,
              nbytes: int) -> None: ...

    @abstractmethod
    def _zero(self, buffer: Buffer) -> None: ...

    def borrow_host(self, array: np.ndarray[Any, Any]) -> Buffer | None:
        """Return a buffer over the host array itself, or None where the device cannot read host
        memory."""
        return None

    def host_view(self, buffer: Buffer) -> Bytes | None:
        """Return the buffer as host bytes without a copy, or None where the host cannot read it."""
        return None

    def available(self) -> int | None:
        """Free bytes on the device, or None if unknown."""
        return None

    def _forget(self, nbytes: int) -> None:
        self.stats.allocated -= nbytes
        self.stats.live -= 1

    def _check(self, buffer: Buffer, offset: int, nbytes: int, what: str) -> None:
        if not buffer.alive:
            _ = buffer.handle  # raises LifetimeError
        if buffer.allocator.device != self.device:
            raise BoundsError(f"{what}: the buffer is on {buffer.allocator.device}, this allocator "
                              f"serves {self.device}")
        if offset < 0 or nbytes < 0 or offset + nbytes > buffer.nbytes:
            raise BoundsError(f"{what}: bytes {offset}..{offset + nbytes} asked for, the buffer on "
                              f"{self.device} has {buffer.nbytes}")


def _as_bytes(array: np.ndarray[Any, Any]) -> Bytes:
    if not array.flags.c_contiguous:
        raise BoundsError(f"a host copy needs a C-contiguous array, got strides {array.strides}; "
                          "pass numpy.ascontiguousarray(a)")
    return array.reshape(-1).view(np.uint8)
