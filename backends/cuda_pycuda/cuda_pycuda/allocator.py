"""Takes device memory from PyCUDA's pool, and copies in the order of the backend's stream."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pycuda.driver as cuda

from core import Buffer, DeviceAllocator, Suballocator
from core.errors import AllocationError
from cuda_pycuda.device import Device
from cuda_pycuda.device import gpu as one_gpu

_STAGED = 1 << 16  # bytes; smaller reads go through page-locked memory, which is faster for them


class PycudaAllocator(DeviceAllocator):
    """Queues every copy on one stream, so that it sees what kernels wrote before it."""

    def __init__(self, gpu: Device) -> None:
        super().__init__()
        self.device = f"cuda:{gpu.index}"
        self._stream, self._pool = gpu.stream, gpu.pool
        self._slabs = one_gpu.keep(Suballocator(self._take, lambda memory: memory.free()))
        self._staging = one_gpu.keep(cuda.pagelocked_empty(_STAGED, np.uint8))

    def _allocate(self, nbytes: int) -> tuple[Any, int]:
        with one_gpu:
            return one_gpu.room(partial(self._slabs.allocate, nbytes))

    def _take(self, nbytes: int) -> tuple[Any, int]:
        # the pool rounds sizes up by as much as a sixteenth, though not a slab's
        alone = nbytes > Suballocator.MOST and nbytes != Suballocator.SLAB
        take = cuda.mem_alloc if alone else self._pool.allocate
        try:
            memory = take(max(1, nbytes))
        except cuda.MemoryError as error:
            raise AllocationError(
                f"{self.device}: {nbytes:,} bytes were asked for, {self.available():,} are free; "
                "lower --max-context, or use --quantize") from error
        return memory, int(memory)

    def _free(self, handle: Any) -> None:  # noqa: ANN401 - the ABC's signature
        one_gpu.later(partial(self._slabs.free, handle))  # later uses come later on the stream

    def _copy_from_host(self, dst: Buffer, offset: int, src: np.ndarray) -> None:
        # from pageable memory the call returns once the bytes are staged, so `src` may change
        if src.nbytes:
            with one_gpu:
                cuda.memcpy_htod_async(dst.pointer + offset, src, self._stream)

    def _copy_to_host(self, src: Buffer, offset: int, dst: np.ndarray) -> None:
        count = dst.nbytes
        if count == 0:
            return
        target = self._staging[:count] if count <= _STAGED else dst
        with one_gpu:
            cuda.memcpy_dtoh_async(target, src.pointer + offset, self._stream)
            self._stream.synchronize()
            if target is not dst:
                dst[:] = target

    def _copy(self, dst: Buffer, dst_offset: int, src: Buffer, src_offset: int,
              nbytes: int) -> None:
        if nbytes:
            with one_gpu:
                cuda.memcpy_dtod_async(dst.pointer + dst_offset, src.pointer + src_offset, nbytes,
                                       self._stream)

    def _zero(self, buffer: Buffer) -> None:
        if buffer.nbytes:
            with one_gpu:
                cuda.memset_d8_async(buffer.pointer, 0, buffer.nbytes, self._stream)

    def synchronize(self) -> None:
        with one_gpu:
            self._stream.synchronize()

    def available(self) -> int:
        with one_gpu:
            free, _ = cuda.mem_get_info()
        return int(free + self._pool.managed_bytes - self._pool.active_bytes)
