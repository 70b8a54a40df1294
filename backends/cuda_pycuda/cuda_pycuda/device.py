"""Opens the device that this backend computes on, once, with an error that names the fix."""

from __future__ import annotations

import atexit
import contextlib
import threading
from dataclasses import dataclass
from typing import Any

from core import cuda

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: not ordered with the default stream, which others use


@dataclass(frozen=True)
class Device(cuda.Gpu):
    """Holds the GPU with PyCUDA's memory pool."""

    pool: Any


class PycudaGpu(cuda.OneGpu[Device]):
    """Opens the GPU through PyCUDA.

    Works in the device's primary context, which the CUDA runtime uses as well: memory of other
    libraries of this process, CuPy's among them, is valid here by its address.
    """

    backend = "cuda_pycuda"
    _inside: int | None = None  # the thread in whose stack the context is

    def find(self, index: int) -> Device:
        try:
            import pycuda.driver as driver
            from pycuda.tools import DeviceMemoryPool
        except Exception as error:
            if "libcuda" in str(error):
                raise self.no_driver(f" ({error})") from error
            raise self.unavailable(
                f"PyCUDA cannot be imported ({type(error).__name__}: {error})",
                "pip install --force-reinstall pycuda") from error
        try:
            driver.init()
            count = driver.Device.count()
        except driver.Error as error:
            raise self.driver_failed(error) from error
        self.check_index(index, count)
        gpu = driver.Device(index)
        major, minor = gpu.compute_capability()
        self.check_arch(gpu.name(), major * 10 + minor)
        self._context, self._pop = self.keep(gpu.retain_primary_context()), driver.Context.pop
        with self:
            found = Device(index, gpu.name(), major * 10 + minor,
                           gpu.get_attribute(driver.device_attribute.MULTIPROCESSOR_COUNT),
                           driver.get_driver_version(), driver.Stream(_NON_BLOCKING),
                           DeviceMemoryPool())
        atexit.register(self._end, driver.Error, found)
        return found

    def enter(self) -> None:
        self._inside = threading.get_ident()
        self._context.push()

    def leave(self) -> None:
        """Take the context off this thread's stack: PyCUDA aborts the process where a thread ends
        with one on it."""
        self._pop()
        self._inside = None

    def _end(self, failure: type[Exception], found: Device) -> None:
        """Give back what the pool holds. Runs after an exception and after Ctrl-C too."""
        if self.lost:
            return
        for last in (found.stream.synchronize, found.pool.stop_holding):
            with contextlib.suppress(failure), self:  # a kernel that failed fails every later call
                last()
        if self._inside == threading.get_ident():  # Ctrl-C came between `enter` and its block
            with contextlib.suppress(failure):
                self.leave()


gpu = PycudaGpu()
open_device, device = gpu.open, gpu.opened
