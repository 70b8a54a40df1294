"""Compiles CUDA sources through CuPy's NVRTC, with a cache on disk."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from core import CodeCache, cuda

sources = cuda.Sources("cuda_cupy", Path(__file__).parent / "cuda")


@cache
def nvrtc() -> cuda.Compiler:
    """Return NVIDIA's compiler as a library, which CuPy has found."""
    from cupy.cuda import nvrtc as rtc

    def run(path: Path, flags: list[str]) -> tuple[bytes, str]:
        included = CodeCache.headers(path)
        program = rtc.createProgram(CodeCache.source(path), path.name,
                                    [CodeCache.source(h).encode() for h in included],
                                    [h.name.encode() for h in included])
        try:
            rtc.compileProgram(program, flags)
            return rtc.getCUBIN(program), rtc.getProgramLog(program)
        except rtc.NVRTCError as error:
            raise cuda.CompileError(f"{error}\n{rtc.getProgramLog(program)}") from error
        finally:
            rtc.destroyProgram(program)
    return cuda.Compiler(f"nvrtc {rtc.getVersion()}", run)


@cache
def _module(file: str, defines: tuple[tuple[str, object], ...]) -> Any:  # noqa: ANN401 - cupy's
    from cupy.cuda import function

    from cuda_cupy.device import device, gpu
    code = sources.cubin(file, dict(defines), device().target, nvrtc())
    with gpu:
        module = gpu.keep(function.Module())
        module.load(code)
    return module


def load(file: str, entry: str, defines: cuda.Defines) -> Any:  # noqa: ANN401 - cupy's Function
    """Return the kernel `entry` of `cuda/<file>`, compiled with these defines and loaded."""
    from cuda_cupy.device import gpu
    module = _module(file, tuple(sorted(defines.items())))
    with gpu:
        return module.get_function(entry)
