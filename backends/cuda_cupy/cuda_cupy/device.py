"""The device that this backend computes on: opened once, with an error that names the fix."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import BackendError, OptionError

WHEEL = "pip install 'cupy-cuda13x[ctk]'"


@dataclass(frozen=True)
class Device:
    """The GPU and the one stream on which copies and kernels follow each other."""

    index: int
    name: str
    arch: int
    multiprocessors: int
    stream: Any
    driver: int

    @property
    def target(self) -> str:
        """The machine code to compile for; `a` admits Hopper's own instructions."""
        return "sm_90a" if self.arch == 90 else f"sm_{self.arch}"


_opened: list[Device] = []  # at most one: loaded modules and streams belong to it


def open_device(index: int = 0) -> Device:
    """The GPU that this process computes on, opened by the first call, and current in this thread.

    Raises BackendError saying what is missing and the line that mends it, OptionError for an index
    that no GPU has or while another GPU is open.
    """
    if not _opened:
        _opened.append(_find(index))
    if _opened[0].index != index:
        raise OptionError(f"--device {index}: this process computes on GPU {_opened[0].index} "
                          "already; use another process, or CUDA_VISIBLE_DEVICES")
    return _opened[0]


def device() -> Device:
    """The open GPU."""
    return _opened[0]


def _find(index: int) -> Device:
    try:
        import cupy
        from cupy.cuda import runtime
    except Exception as error:
        raise _unavailable(f"CuPy cannot be imported ({type(error).__name__}: {error})", WHEEL
                           ) from error
    wheel = runtime.runtimeGetVersion()
    try:
        driver = runtime.driverGetVersion()
    except runtime.CUDARuntimeError:
        driver = 0
    if driver == 0:
        raise _unavailable("no NVIDIA driver is loaded", "install one from https://www.nvidia.com/"
                           "drivers, or use --backend cpu_numpy")
    if driver // 1000 < wheel // 1000:
        raise _unavailable(
            f"the driver speaks CUDA {_version(driver)}, this CuPy wheel needs {_version(wheel)}",
            f"pip install 'cupy-cuda{driver // 1000}x[ctk]' in its place, or update the driver")
    try:
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        raise _unavailable(f"the driver reports: {error}", "check it with nvidia-smi") from error
    if count == 0:
        raise _unavailable("the driver sees no GPU", "check nvidia-smi, and that "
                           "CUDA_VISIBLE_DEVICES names one")
    try:
        from cupy.cuda import nvrtc
        nvrtc.getVersion()
    except Exception as error:
        raise _unavailable(f"NVRTC, which compiles the kernels, cannot be loaded ({error})", WHEEL
                           ) from error
    if index >= count:
        raise OptionError(f"--device {index}: the driver sees {count} GPU{'s' * (count > 1)}, "
                          f"counted from 0")
    properties = runtime.getDeviceProperties(index)
    arch = properties["major"] * 10 + properties["minor"]
    name = properties["name"].decode()
    if arch < 80:
        raise _unavailable(f"{name} has compute capability {arch / 10}, the kernels need 8.0",
                           "use --backend cpu_numpy")
    cupy.cuda.Device(index).use()
    stream = cupy.cuda.Stream(non_blocking=True)
    return Device(index, name, arch, properties["multiProcessorCount"], stream, driver)


def driver_release() -> str:
    """The release of NVIDIA's kernel module, where the system says: ", driver 580.95"."""
    try:
        return f", driver {Path('/sys/module/nvidia/version').read_text().strip()}"
    except OSError:
        return ""


def _unavailable(reason: str, fix: str) -> BackendError:
    return BackendError(f"backend cuda_cupy is unavailable: {reason}; fix: {fix}")


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"
