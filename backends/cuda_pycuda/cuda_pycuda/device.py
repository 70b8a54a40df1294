"""The device that this backend computes on: opened once, with an error that names the fix."""

from __future__ import annotations

import atexit
import contextlib
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import BackendError, OptionError

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: not ordered with the default stream, which others use
_OLDEST = (8, 0)   # cp.async and mma.m16n8k16 with bf16


@dataclass(frozen=True)
class Device:
    """The GPU, the one stream on which copies and kernels follow each other, and PyCUDA's pool."""

    index: int
    name: str
    arch: int
    multiprocessors: int
    driver: int
    stream: Any
    pool: Any

    @property
    def target(self) -> str:
        """The machine code to compile for; `a` admits Hopper's own instructions."""
        return "sm_90a" if self.arch == 90 else f"sm_{self.arch}"


_opened: list[Device] = []


def device() -> Device:
    """The opened device. Kernels bind only after the backend has opened it."""
    return _opened[0]


def open_device(index: int = 0) -> Device:
    """The GPU that this process computes on, opened by the first call, and current in this thread.

    Raises BackendError saying what is missing and what mends it, OptionError for an index that no
    GPU has or while another GPU is open.

    Works in the device's primary context, which the CUDA runtime uses as well: memory of other
    libraries of this process, CuPy's among them, is valid here by its address.
    """
    if _opened:
        if _opened[0].index != index:
            raise OptionError(f"--device {index}: this process computes on GPU {_opened[0].index} "
                              "already; use another process, or CUDA_VISIBLE_DEVICES")
        return _opened[0]
    try:
        import pycuda.driver as cuda
        from pycuda.tools import DeviceMemoryPool
    except Exception as error:
        if "libcuda" in str(error):
            raise _unavailable(f"no NVIDIA driver is loaded ({error})", "install one from "
                               "https://www.nvidia.com/drivers, or use --backend cpu_numpy"
                               ) from error
        raise _unavailable(f"PyCUDA cannot be imported ({type(error).__name__}: {error})",
                           "pip install --force-reinstall pycuda") from error
    try:
        cuda.init()
        count = cuda.Device.count()
    except cuda.Error as error:
        raise _unavailable(f"the driver reports: {error}", "check it with nvidia-smi") from error
    if count == 0:
        raise _unavailable("the driver sees no GPU", "check nvidia-smi, and that "
                           "CUDA_VISIBLE_DEVICES names one")
    if index >= count:
        raise OptionError(f"--device {index}: the driver sees {count} GPUs, counted from 0")
    gpu = cuda.Device(index)
    capability = gpu.compute_capability()
    if capability < _OLDEST:
        raise _unavailable(f"{gpu.name()} has compute capability {capability[0]}.{capability[1]}, "
                           "the kernels need 8.0", "use --backend cpu_numpy")
    context = gpu.retain_primary_context()
    context.push()
    found = Device(index, gpu.name(), capability[0] * 10 + capability[1],
                   gpu.get_attribute(cuda.device_attribute.MULTIPROCESSOR_COUNT),
                   cuda.get_driver_version(), cuda.Stream(_NON_BLOCKING), DeviceMemoryPool())
    _opened.append(found)
    atexit.register(_leave, cuda, found, threading.get_ident())
    return found


def _leave(cuda: Any, gpu: Device, thread: int) -> None:  # noqa: ANN401 - the module
    """Take the context off PyCUDA's stack, or PyCUDA aborts the process at its end.

    Runs after an exception and after Ctrl-C too. What still holds memory keeps the context alive.
    """
    if threading.get_ident() != thread:
        return  # each thread has a stack of its own
    with contextlib.suppress(cuda.Error):  # a kernel that failed fails every later call
        gpu.stream.synchronize()
        gpu.pool.stop_holding()
    with contextlib.suppress(cuda.Error):
        cuda.Context.pop()


def driver_release() -> str:
    """The release of NVIDIA's kernel module, where the system says: ", driver 580.95"."""
    try:
        return f", driver {Path('/sys/module/nvidia/version').read_text().strip()}"
    except OSError:
        return ""


def _unavailable(reason: str, fix: str) -> BackendError:
    return BackendError(f"backend cuda_pycuda is unavailable: {reason}; fix: {fix}")
