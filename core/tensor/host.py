"""Host memory: implements the DeviceAllocator contract without a device library."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from core.errors import AllocationError
from core.tensor.allocator import ALIGNMENT, Buffer, Bytes, DeviceAllocator
from core.tensor.tensor import Array


class HostAllocator(DeviceAllocator):
    """Allocates host memory through NumPy, aligned as a plan lays it out. Every CPU backend uses
    it, so that they share tensors."""

    device = "cpu"
    allocates_zeros = True

    def _allocate(self, nbytes: int) -> tuple[Bytes, int]:
        try:
            memory = np.zeros(nbytes + ALIGNMENT, np.uint8)
        except (MemoryError, ValueError) as error:
            raise AllocationError(f"cpu: {nbytes:,} bytes were asked for, "
                                  f"{self.available() or 0:,} are free; lower --max-context, or "
                                  "use --quantize") from error
        start = -memory.ctypes.data % ALIGNMENT  # malloc gives 16 bytes: each vector in two lines
        return memory[start:start + nbytes], memory.ctypes.data + start

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
        """Return the bytes that the kernel would give without swapping, cached file pages included,
        and no more than the control group (a container) may still take."""
        found = [n for n in (_machine_available(), _group_available()) if n is not None]
        return min(found, default=None)

    @staticmethod
    def read_bandwidth(bind: Callable[[Array, Array, Array], Callable[[], object]]) -> float:
        """Measure the bytes a second that matrix @ vector reads, the best of five.

        `bind(matrix, vector, out)` gives the product as a launch. The float32 matrix [N, 2048]
        takes 1 GiB, since a server's last cache has held 256 MiB, or a quarter of what is free.
        """
        free = HostAllocator().available() or 1 << 30
        matrix = np.ones((min(1 << 30, free // 4) // 8192, 2048), np.float32)
        launch = bind(matrix, np.ones(2048, np.float32), np.empty(len(matrix), np.float32))
        times = []
        for _ in range(5):
            start = time.perf_counter()
            launch()
            times.append(time.perf_counter() - start)
        return matrix.nbytes / min(times)


def _machine_available() -> int | None:
    for line in _lines("/proc/meminfo"):
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) << 10
    if "SC_AVPHYS_PAGES" in getattr(os, "sysconf_names", ()):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _group_available(root: str = "/sys/fs/cgroup") -> int | None:
    """Return the bytes that a control group of version 2 has left, as a container sees its own:
    https://docs.kernel.org/admin-guide/cgroup-v2.html. Inactive file pages count as used there, and
    are given back on demand."""
    limit, used = (_lines(f"{root}/memory.{name}") for name in ("max", "current"))
    if not (limit and used) or limit[0] == "max":
        return None
    stat = dict(line.split() for line in _lines(f"{root}/memory.stat"))
    return int(limit[0]) - int(used[0]) + int(stat.get("inactive_file", 0))


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="ascii").splitlines()
    except OSError:  # another system, or no such limit
        return []
