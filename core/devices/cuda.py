"""Holds what backends for NVIDIA GPUs share, whichever library they reach the GPU through:
compiling sources, captured steps, putting launches together.

No device library is imported here. Kernels are not shared: the sources of two backends are two
independent votes on every result.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from core.devices.code_cache import CodeCache
from core.devices.entry import Held as Held
from core.devices.gpu import Gpu as Gpu
from core.devices.gpu import OneGpu as OneGpu
from core.devices.gpu import version as version
from core.devices.late_reads import SLOT as SLOT
from core.devices.late_reads import SLOTS as SLOTS
from core.devices.late_reads import LateReads as LateReads
from core.errors import BackendError
from core.plugins.backend import Backend
from core.plugins.backend import Launch as AnyLaunch
from core.tensor.dtype import DType, bf16, f16
from core.tensor.tensor import Array, Tensor

Defines = Mapping[str, object]
Launch = Callable[[], None]
T = TypeVar("T")


class CompileError(Exception):
    """Carries the compiler's log."""


@dataclass(frozen=True)
class Compiler:
    """Holds a compiler: its name with the version, and what turns a source into machine code.

    `run(path, flags)` returns the code and ptxas's report, or raises CompileError.
    """

    version: str
    run: Callable[[Path, list[str]], tuple[bytes, str]]


class Sources:
    """Compiles one backend's CUDA sources, with a cache on disk.

    It needs no GPU, so tests compile every kernel on any machine.
    """

    def __init__(self, backend: str, folder: Path) -> None:
        self.backend, self.folder, self.cache = backend, folder, CodeCache(backend)

    def files(self) -> dict[str, Path]:
        """List sources and headers by name."""
        return {p.name: p for p in sorted(self.folder.glob("*.cu*"))}

    def cubin(self, file: str, defines: Defines, target: str, compiler: Compiler) -> bytes:
        """Return machine code of a source for `target`, such as sm_90a, from the cache if there.

        Raises BackendError with the compiler's log.
        """
        path = self.folder / file
        made_of = [*CodeCache.texts(path), *flags(defines, target), compiler.version]
        return self.cache.get(f"{path.stem}-{target}", made_of,
                              lambda: self.compile(file, defines, target, compiler)[0])

    def compile(self, file: str, defines: Defines, target: str,
                compiler: Compiler) -> tuple[bytes, str]:
        """Return (machine code, ptxas's report), past the cache. Raises BackendError with the
        compiler's log."""
        try:
            return compiler.run(self.folder / file, flags(defines, target))
        except CompileError as error:
            raise BackendError(f"{self.backend}: {file} does not compile for {target} with "
                               f"{dict(defines)}:\n{error}") from error


def flags(defines: Defines, target: str) -> list[str]:
    """List the flags for a source, as nvcc and NVRTC both take them."""
    return [f"--gpu-architecture={target}", "-std=c++17", "--ptxas-options=-v",
            *(f"-D{name}={value}" for name, value in sorted(defines.items()))]


class CudaBackend(Backend):
    """Implements what a backend on a CUDA GPU does, less what its library decides."""

    prompt_chunk = 4096
    run_ahead = 2  # the next step is queued while the host waits for this one's token
    kernel_sources: ClassVar[Sources]
    one_gpu: ClassVar[OneGpu[Any]]  # it alone knows of forks
    late_reads: LateReads

    @classmethod
    def activation_dtype(cls, stored: DType) -> DType:
        """Choose the stored 16-bit type, for which there are tensor cores; else float32."""
        return stored if stored in (f16, bf16) else super().activation_dtype(stored)

    def check_alive(self) -> None:
        super().check_alive()
        self.one_gpu.check()

    def in_any_thread(self, launch: Callable[[], T]) -> Callable[[], T]:
        gpu = self.one_gpu

        def run() -> T:
            with gpu:
                return launch()
        return run

    def read_later(self, tensor: Tensor) -> Callable[[], Array]:
        with self.one_gpu:
            return self.in_any_thread(self.late_reads.queue(tensor))

    def capture(self, launch: AnyLaunch) -> AnyLaunch:
        with self.one_gpu:  # what another thread queued would become part of the step
            return self.record(launch)

    @abstractmethod
    def record(self, launch: AnyLaunch) -> AnyLaunch:
        """Capture a step, and return its replay."""

    def sources(self) -> Mapping[str, Path]:
        return self.kernel_sources.files()

    @classmethod
    def cache_folders(cls) -> list[Path]:
        return cls.kernel_sources.cache.folders()


class Long(int):
    """Marks an argument that the kernel takes as 64 bits."""


def cover(count: int, each: int) -> int:
    """Count how many of `each` it takes to cover `count`."""
    return -(-count // each)


def nothing() -> None:
    """Launch an empty problem."""


def sequence(*launches: Launch) -> Launch:
    """Put several launches into one."""
    kept = [run for run in launches if run is not nothing]

    def run() -> None:
        for each in kept:
            each()
    return run if kept else nothing
