"""Host memory behind the DeviceAllocator contract: the one device that needs no device library."""

from __future__ import annotations

import os

import numpy as np

from core.allocator import Buffer, Bytes, DeviceAllocator
from core.errors import AllocationError
from core.tensor import Array


class HostAllocator(DeviceAllocator):
    """Host memory as NumPy allocates it. Every CPU backend uses it, so that they share tensors."""

    device = "cpu"
    allocates_zeros = True

    def _allocate(self, nbytes: int) -> tuple[Bytes, int]:
        try:
            memory = np.zeros(nbytes, np.uint8)
        except (MemoryError, ValueError) as error:
            raise AllocationError(f"cpu: {nbytes:,} bytes were asked for, "
                                  f"{self.available() or 0:,} are free; lower --max-context, or "
                                  "use --quantize") from error
        return memory, memory.ctypes.data

    def _free(self, handle: Bytes) -> None:
        del handle  # the array's last reference

    def _copy_from_host(self, dst: Buffer, offset: int, src: Bytes) -> None:
        dst.handle[offset:offset + src.nbytes] = src

    def _copy_to_host(self, src: Buffer, offset: int, dst: Bytes) -> None:
        dst[:] = src.handle[offset:offset + dst.nbytes]

    def _copy(self, dst: Buffer, dst_offset: int, src: Buffer, src_offset: int,
              nbytes: int) -> None:
        dst.handle[dst_offset:dst_offset + nbytes] = src.handle[src_offset:src_offset + nbytes]

    def _zero(self, buffer: Buffer) -> None:
        buffer.handle[:] = 0

    def borrow_host(self, array: Array) -> Buffer:
        flat = array.reshape(-1).view(np.uint8)
        return Buffer(self, flat, array.ctypes.data, array.nbytes, owned=False, keepalive=array)

    def host_view(self, buffer: Buffer) -> Bytes:
        return buffer.handle  # type: ignore[no-any-return]

    def available(self) -> int | None:
        if not hasattr(os, "sysconf") or "SC_AVPHYS_PAGES" not in os.sysconf_names:
            return None
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
