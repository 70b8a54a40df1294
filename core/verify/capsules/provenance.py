"""States what a result came from: hashes of a kernel's sources, versions, the machine."""

from __future__ import annotations

import functools
import hashlib
import inspect
import os
import platform
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import worded
from core.installed.registry import Registry
from core.plugins.kernel import Kernel

#: What a kernel may be made of.
_SOURCES = {".py", ".pyx", ".c", ".cc", ".cpp", ".h", ".hpp", ".cu", ".cuh", ".ptx", ".cubin",
            ".so", ".pyd"}

#: By these, libraries choose how many threads add parts of a sum.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def source_hash(kernel: Kernel, registry: Registry) -> str:
    """Return a hash of the kernel's function, of every source file of its package, and of the
    sources that its backend lists (CUDA files)."""
    found = hashlib.sha256(source_text(kernel))
    listed = registry.backend(kernel.backend).sources()
    for name, path in [*_package_files(kernel), *sorted(listed.items())]:
        found.update(name.encode())
        found.update(path.read_bytes())
    return found.hexdigest()


def source_text(kernel: Kernel) -> bytes:
    """Return the text of the kernel's function."""
    try:
        return inspect.getsource(_function(kernel)).encode()
    except (OSError, TypeError):  # made by a program: nobody else has it
        return repr(kernel.bind).encode()


def versions() -> dict[str, str]:
    """Return the versions of the interpreter, NumPy and every plugin package, and the machine."""
    found = {"python": platform.python_version(), "numpy": np.__version__,
             "machine": f"{platform.system()} {platform.machine()}"}
    for entry in metadata.entry_points(group="kernelyard.plugins"):
        if entry.dist is not None:
            found[entry.dist.name] = entry.dist.version
    return found


def environment(kernel: Kernel, registry: Registry) -> dict[str, str]:
    """Return what may change a result's bits beside the kernel's source: `versions`, the processor,
    the device and the numbers of threads."""
    return {**versions(), "processor": _processor(), "device": _device(kernel.backend, registry),
            **{name: os.environ[name] for name in _THREADS if name in os.environ}}


def _function(kernel: Kernel) -> Callable[..., Any]:
    function: Callable[..., Any] = kernel.bind
    while isinstance(function, functools.partial):
        function = function.func
    found: Callable[..., Any] = inspect.unwrap(function)
    return found


def _package_files(kernel: Kernel) -> Iterator[tuple[str, Path]]:
    name = (getattr(_function(kernel), "__module__", None) or "").split(".")[0]
    top = sys.modules.get(name)
    folders = [Path(p) for p in getattr(top, "__path__", [])]
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.suffix in _SOURCES and path.is_file():
                yield path.relative_to(folder).as_posix(), path
    file = getattr(top, "__file__", None)
    if not folders and file is not None and Path(file).is_file():
        yield Path(file).name, Path(file)


def _device(backend: str, registry: Registry) -> str:
    try:
        return registry.backend(backend).describe()
    except Exception as error:  # a backend's own text must not cost the capsule
        return f"describe() failed with {worded(error)}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # another system
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {os.cpu_count()} threads" if names else platform.processor()
