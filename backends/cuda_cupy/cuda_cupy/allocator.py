"""Takes device memory from CuPy's pool, and copies in the order of the backend's stream."""

from __future__ import annotations

from functools import partial
from typing import Any

import cupy
import numpy as np
from cupy.cuda import runtime

from core import Buffer, DeviceAllocator, Suballocator, cuda
from core.errors import AllocationError
from cuda_cupy.device import gpu as one_gpu

_STAGED = 1 << 16  # bytes; smaller reads go through page-locked memory, which is faster for them


class CudaAllocator(DeviceAllocator):
    """Queues every copy on one stream, so that it sees what kernels wrote before it."""

    def __init__(self, gpu: cuda.Gpu) -> None:
        super().__init__()
        self.device = f"cuda:{gpu.index}"
        self._stream = gpu.stream
        self._slabs = Suballocator(self._take, lambda memory: None)  # back to the pool
        self._pinned = one_gpu.keep(cupy.cuda.alloc_pinned_memory(_STAGED))
        self._staging = np.frombuffer(self._pinned, np.uint8, _STAGED)

    def _allocate(self, nbytes: int) -> tuple[Any, int]:
        with one_gpu:
            return one_gpu.room(partial(self._slabs.allocate, nbytes))

    def _take(self, nbytes: int) -> tuple[Any, int]:
        try:
            with self._stream:
                memory = cupy.cuda.alloc(nbytes)
        except cupy.cuda.memory.OutOfMemoryError as error:
            raise AllocationError(
                f"{self.device}: {nbytes:,} bytes were asked for, {self.available():,} are free; "
                "lower --max-context, or use --quantize") from error
        return memory, memory.ptr

    def _free(self, handle: Any) -> None:  # noqa: ANN401 - the ABC's signature
        one_gpu.later(partial(self._slabs.free, handle))  # later uses come later on the stream

    def _copy_from_host(self, dst: Buffer, offset: int, src: np.ndarray) -> None:
        # from pageable memory the call returns once the bytes are staged, so `src` may change
        if src.nbytes:
            with one_gpu:
                runtime.memcpyAsync(dst.pointer + offset, src.ctypes.data, src.nbytes,
                                    runtime.memcpyHostToDevice, self._stream.ptr)

    def _copy_to_host(self, src: Buffer, offset: int, dst: np.ndarray) -> None:
        count = dst.nbytes
        if count == 0:
            return
        staged = count <= _STAGED
        target = self._pinned.ptr if staged else dst.ctypes.data
        with one_gpu:
            runtime.memcpyAsync(target, src.pointer + offset, count, runtime.memcpyDeviceToHost,
                                self._stream.ptr)
            self._stream.synchronize()
            if staged:
                dst[:] = self._staging[:count]

    def _copy(self, dst: Buffer, dst_offset: int, src: Buffer, src_offset: int,
              nbytes: int) -> None:
        if nbytes:
            with one_gpu:
                runtime.memcpyAsync(dst.pointer + dst_offset, src.pointer + src_offset, nbytes,
                                    runtime.memcpyDeviceToDevice, self._stream.ptr)

    def _zero(self, buffer: Buffer) -> None:
        if buffer.nbytes:
            with one_gpu:
                runtime.memsetAsync(buffer.pointer, 0, buffer.nbytes, self._stream.ptr)

    def synchronize(self) -> None:
        with one_gpu:
            self._stream.synchronize()

    def available(self) -> int:
        with one_gpu:
            free, _ = runtime.memGetInfo()
            return int(free + cupy.get_default_memory_pool().free_bytes())
