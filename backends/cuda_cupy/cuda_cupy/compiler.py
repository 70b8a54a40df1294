"""CUDA sources to machine code through NVRTC, cached on disk.

A cache entry is named by everything that goes into it: the source with its headers, the flags, the
target and NVRTC's version. It needs no GPU, so tests compile every kernel on any machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from core import CodeCache
from core.errors import BackendError

SOURCES = Path(__file__).parent / "cuda"
Defines = Mapping[str, object]
kept = CodeCache("cuda_cupy")


def cubin(file: str, defines: Defines, target: str) -> bytes:
    """Machine code of `cuda/<file>` for `target` (such as sm_90a), from the cache if there."""
    from cupy.cuda import nvrtc
    path = SOURCES / file
    made_of = [*CodeCache.texts(path), *_flags(defines, target), str(nvrtc.getVersion())]
    return kept.get(f"{path.stem}-{target}", made_of,
                    lambda: compile_source(file, defines, target)[0])


def compile_source(file: str, defines: Defines, target: str) -> tuple[bytes, str]:
    """(machine code, ptxas's report), past the cache. Raises BackendError with the log."""
    from cupy.cuda import nvrtc
    included = CodeCache.headers(SOURCES / file)
    program = nvrtc.createProgram(CodeCache.source(SOURCES / file), file,
                                  [CodeCache.source(h).encode() for h in included],
                                  [h.name.encode() for h in included])
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
def _module(file: str, defines: tuple[tuple[str, object], ...]) -> Any:  # noqa: ANN401 - cupy's
    from cupy.cuda import function

    from cuda_cupy.device import device
    module = function.Module()
    module.load(cubin(file, dict(defines), device().target))
    return module


def load(file: str, entry: str, defines: Defines) -> Any:  # noqa: ANN401 - cupy's Function
    """The kernel `entry` of `cuda/<file>`, compiled with these defines and loaded."""
    return _module(file, tuple(sorted(defines.items()))).get_function(entry)
