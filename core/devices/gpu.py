"""Opens the NVIDIA GPU that a process computes on, whichever library it is reached through."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from core.devices.entry import Entry
from core.errors import BackendError, OptionError, unavailable

OLDEST = 80  # compute capability 8.0: cp.async, and mma.m16n8k16 with bf16


@dataclass(frozen=True)
class Gpu:
    """Holds an open GPU, and the one stream on which copies and kernels follow each other.

    arch    compute capability times 10
    driver  the newest CUDA version that the driver speaks, as 1000 * major + 10 * minor
    """

    index: int
    name: str
    arch: int
    multiprocessors: int
    driver: int
    stream: Any

    @property
    def target(self) -> str:
        """Name the machine code to compile for; `a` admits Hopper's own instructions."""
        return "sm_90a" if self.arch == 90 else f"sm_{self.arch}"

    def describe(self) -> str:
        """Describe driver and GPU in part of a line."""
        try:
            module = Path("/sys/module/nvidia/version").read_text().strip()
            release = f", driver {module}"
        except OSError:
            release = ""
        return (f"CUDA {version(self.driver)}{release}, GPU {self.index}: {self.name} "
                f"(sm_{self.arch})")


def version(number: int) -> str:
    """Write CUDA's version number as people do: 13000 as 13.0."""
    return f"{number // 1000}.{number % 1000 // 10}"


G = TypeVar("G", bound=Gpu)
T = TypeVar("T")


class OneGpu(Entry, ABC, Generic[G]):
    """Opens the GPU that this process computes on, once: modules and streams belong to it. Every
    use of it is in a block of `with`."""

    def __init__(self) -> None:
        super().__init__()
        self._opened: G | None = None

    @abstractmethod
    def find(self, index: int) -> G:
        """Open GPU `index`. Raises as `open` does, by the methods below."""

    def open(self, index: int = 0) -> G:
        """Return the GPU that this process computes on, which the first call opens.

        Raises BackendError saying what is missing and how to fix it, OptionError for an index that
        no GPU has or while another GPU is open.
        """
        self.check()
        with self._alone:
            if self._opened is None:
                self._opened = self.keep(self.find(index))
                self.ends_at_fork()
        if self._opened.index != index:
            raise OptionError(f"--device {index}: this process computes on GPU "
                              f"{self._opened.index} already; use another process, or "
                              "CUDA_VISIBLE_DEVICES")
        return self._opened

    def opened(self) -> G:
        """Return the open GPU. Kernels bind only after the backend has opened it."""
        if self._opened is None:
            raise BackendError(f"{self.backend}: no GPU is open; fix: make the backend before its "
                               "kernels are bound")
        return self._opened

    def unavailable(self, reason: str, fix: str) -> BackendError:
        return unavailable(self.backend, reason, fix)

    def no_driver(self, detail: str = "") -> BackendError:
        return self.unavailable(f"no NVIDIA driver is loaded{detail}", "install one from "
                                "https://www.nvidia.com/drivers, or use --backend cpu_numpy")

    def driver_failed(self, error: Exception) -> BackendError:
        return self.unavailable(f"the driver reports: {error}", "check it with nvidia-smi")

    def check_index(self, index: int, count: int) -> None:
        """Raise if the driver sees none of `count` GPUs, or no GPU of this index."""
        if count == 0:
            raise self.unavailable("the driver sees no GPU", "check nvidia-smi, and that "
                                   "CUDA_VISIBLE_DEVICES names one")
        if index >= count:
            raise OptionError(f"--device {index}: the driver sees {count} GPU{'s' * (count > 1)}, "
                              "counted from 0")

    def check_arch(self, name: str, arch: int) -> None:
        """Raise if the kernels do not compile for a GPU of this compute capability times 10."""
        if arch < OLDEST:
            raise self.unavailable(f"{name} has compute capability {arch / 10}, the kernels need "
                                   f"{OLDEST / 10}", "use --backend cpu_numpy")
