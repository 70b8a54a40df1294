"""The device that this backend computes on: opened once, with an error that names the fix."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from core.errors import BackendError

WHEEL = "pip install 'cupy-cuda13x[ctk]'"


@dataclass(frozen=True)
class Device:
    """The GPU and the one stream on which copies and kernels follow each other."""

    name: str
    arch: int
    multiprocessors: int
    stream: Any
    driver: int

    @property
    def target(self) -> str:
        """The machine code to compile for; `a` admits Hopper's own instructions."""
        return "sm_90a" if self.arch == 90 else f"sm_{self.arch}"


@cache
def device() -> Device:
    """Device 0. Raises BackendError saying what is missing and the line that mends it."""
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
    properties = runtime.getDeviceProperties(0)
    arch = properties["major"] * 10 + properties["minor"]
    name = properties["name"].decode()
    if arch < 80:
        raise _unavailable(f"{name} has compute capability {arch / 10}, the kernels need 8.0",
                           "use --backend cpu_numpy")
    with cupy.cuda.Device(0):
        stream = cupy.cuda.Stream(non_blocking=True)
    return Device(name, arch, properties["multiProcessorCount"], stream, driver)


def _unavailable(reason: str, fix: str) -> BackendError:
    return BackendError(f"backend cuda_cupy is unavailable: {reason}; fix: {fix}")


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"
