"""CUDA sources to machine code, by nvcc or, where that is missing, NVRTC; cached on disk.

A cache entry is named by everything that goes into it: the source with its headers, the flags, the
target and the compiler's version. It needs no GPU, so tests compile every kernel on any machine.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from core import CodeCache
from core.errors import BackendError

SOURCES = Path(__file__).parent / "cuda"
Defines = Mapping[str, object]
kept = CodeCache("cuda_pycuda")


@dataclass(frozen=True)
class Toolchain:
    """A compiler: its name with the version, and what turns a file of `SOURCES` into machine code.

    `compile(file, flags, target)` returns the code and ptxas's report, or raises CompileError.
    """

    version: str
    compile: Callable[[str, list[str], str], tuple[bytes, str]]


class CompileError(Exception):
    """The compiler's log."""


def nvcc() -> Toolchain | None:
    """The CUDA toolkit's compiler, if it is on the path."""
    program = shutil.which("nvcc")
    if program is None:
        return None

    def run(file: str, flags: list[str], target: str) -> tuple[bytes, str]:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "kernel.cubin"
            done = subprocess.run([program, "-cubin", f"-arch={target}", "-std=c++17", *flags,
                                   "-Xptxas=-v", "-o", str(out), str(SOURCES / file)],
                                  capture_output=True, text=True, check=False)
            if done.returncode:
                raise CompileError(done.stdout + done.stderr)
            return out.read_bytes(), done.stderr
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return Toolchain(version.stdout, run)


def nvrtc() -> Toolchain | None:
    """NVIDIA's compiler as a library, through cuda-bindings, if it can be loaded."""
    try:
        from cuda.bindings import nvrtc as rtc
        version = rtc.nvrtcVersion()
    except Exception:  # cuda-bindings says by a RuntimeError of its own that there is no library
        return None

    def run(file: str, flags: list[str], target: str) -> tuple[bytes, str]:
        included = CodeCache.headers(SOURCES / file)
        _, program = rtc.nvrtcCreateProgram(
            CodeCache.source(SOURCES / file).encode(), file.encode(), len(included),
            [CodeCache.source(h).encode() for h in included], [h.name.encode() for h in included])
        options = [f"--gpu-architecture={target}", "-std=c++17", *flags, "--ptxas-options=-v"]
        status, = rtc.nvrtcCompileProgram(program, len(options), [o.encode() for o in options])
        log = bytearray(rtc.nvrtcGetProgramLogSize(program)[1])
        rtc.nvrtcGetProgramLog(program, log)
        text = log.decode(errors="replace").rstrip("\0")
        if int(status):
            raise CompileError(text)
        code = bytearray(rtc.nvrtcGetCUBINSize(program)[1])
        rtc.nvrtcGetCUBIN(program, code)
        rtc.nvrtcDestroyProgram(program)
        return bytes(code), text
    return Toolchain(f"nvrtc {version[1]}.{version[2]}", run)


@cache
def toolchain() -> Toolchain:
    """The compiler of this machine. Raises BackendError saying how to get one."""
    found = nvcc() or nvrtc()
    if found is None:
        raise BackendError("backend cuda_pycuda is unavailable: neither nvcc nor NVRTC, which "
                           "compile the kernels, is found; fix: pip install nvidia-cuda-nvrtc")
    return found


def cubin(file: str, defines: Defines, target: str) -> bytes:
    """Machine code of `cuda/<file>` for `target` (such as sm_90a), from the cache if there.

    Raises BackendError with the compiler's log.
    """
    path, tool = SOURCES / file, toolchain()
    made_of = [*CodeCache.texts(path), *_flags(defines), target, tool.version]
    return kept.get(f"{path.stem}-{target}", made_of,
                    lambda: compile_source(file, defines, target, tool)[0])


def compile_source(file: str, defines: Defines, target: str, tool: Toolchain) -> tuple[bytes, str]:
    """(machine code, ptxas's report), past the cache. Raises BackendError with the log."""
    try:
        return tool.compile(file, _flags(defines), target)
    except CompileError as error:
        raise BackendError(f"cuda_pycuda: {file} does not compile for {target} with "
                           f"{dict(defines)}:\n{error}") from error


def _flags(defines: Defines) -> list[str]:
    return [f"-D{k}={v}" for k, v in sorted(defines.items())]
