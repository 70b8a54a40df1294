"""CUDA sources to machine code through NVRTC, cached on disk.

A cache entry is named by everything that goes into it: the source with its headers, the flags, the
target and NVRTC's version. It needs no GPU, so tests compile every kernel on any machine.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from core.errors import BackendError

SOURCES = Path(__file__).parent / "cuda"
Defines = Mapping[str, object]


@dataclass
class CompileStats:
    """What compiling cost in this process."""

    hits: int = 0
    misses: int = 0
    announced: bool = field(default=False, repr=False)


stats = CompileStats()


def cache_folder() -> Path:
    """Where machine code is kept: below XDG_CACHE_HOME or ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "kernelyard" / "cuda_cupy"


def cubin(file: str, defines: Defines, target: str) -> bytes:
    """Machine code of `cuda/<file>` for `target` (such as sm_90a), from the cache if there."""
    from cupy.cuda import nvrtc
    flags = _flags(defines, target)
    text = [_read(file), *(f"{n}\n{_read(n)}" for n in _headers(file)), *flags,
            str(nvrtc.getVersion())]
    key = hashlib.sha256("\0".join(text).encode()).hexdigest()[:32]
    path = cache_folder() / f"{Path(file).stem}-{target}-{key}.cubin"
    try:
        code = path.read_bytes()
        stats.hits += 1
    except OSError:
        code, _ = compile_source(file, defines, target)
        stats.misses += 1
        _store(path, code)
    return code


def compile_source(file: str, defines: Defines, target: str) -> tuple[bytes, str]:
    """(machine code, ptxas's report). Raises BackendError with the compiler's log."""
    from cupy.cuda import nvrtc
    if not stats.announced:
        stats.announced = True
        print("cuda_cupy: compiling kernels for this GPU, once; they are kept in "
              f"{cache_folder()}", file=sys.stderr)
    names = _headers(file)
    program = nvrtc.createProgram(_read(file), file, [_read(n).encode() for n in names],
                                  [n.encode() for n in names])
    try:
        nvrtc.compileProgram(program, [*_flags(defines, target), "--ptxas-options=-v"])
        return nvrtc.getCUBIN(program), nvrtc.getProgramLog(program)
    except nvrtc.NVRTCError as error:
        raise BackendError(f"cuda_cupy: {file} does not compile for {target} with {dict(defines)}: "
                           f"{error}\n{nvrtc.getProgramLog(program)}") from error
    finally:
        nvrtc.destroyProgram(program)


def _flags(defines: Defines, target: str) -> list[str]:
    return [f"--gpu-architecture={target}", "-std=c++17",
            *(f"-D{k}={v}" for k, v in sorted(defines.items()))]


@cache
def _read(file: str) -> str:
    return (SOURCES / file).read_text(encoding="utf-8")


@cache
def _headers(file: str) -> list[str]:
    """The headers that a source includes, directly or through others."""
    found: list[str] = []
    for name in re.findall(r'#include "([^"]+)"', _read(file)):
        found += [n for n in (name, *_headers(name)) if n not in found]
    return found


def _store(path: Path, code: bytes) -> None:
    """Write beside the target, then rename: a reader sees all of it or nothing."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as part:
            part.write(code)
        os.replace(part.name, path)
    except OSError:
        return  # a cache that cannot be written only costs the next start its compile time


@cache
def _module(file: str, defines: tuple[tuple[str, object], ...]) -> Any:  # noqa: ANN401 - cupy's
    from cupy.cuda import function

    from cuda_cupy.device import device
    module = function.Module()
    module.load(cubin(file, dict(defines), device().target))
    return module


def load(file: str, entry: str, defines: Defines) -> Any:  # noqa: ANN401 - cupy's Function
    """The kernel `entry` of `cuda/<file>`, compiled with these defines and loaded."""
    return _module(file, tuple(sorted(defines.items()))).get_function(entry)
