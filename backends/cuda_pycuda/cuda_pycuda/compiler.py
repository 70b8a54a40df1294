"""CUDA sources to machine code, by nvcc or, where that is missing, NVRTC; cached on disk.

A cache entry is named by everything that goes into it: the source with its headers, the flags, the
target and the compiler's version. It needs no GPU, so tests compile every kernel on any machine.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from core.errors import BackendError

SOURCES = Path(__file__).parent / "cuda"
Defines = Mapping[str, object]


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
        names = headers(file)
        _, program = rtc.nvrtcCreateProgram(
            read(file).encode(), file.encode(), len(names), [read(n).encode() for n in names],
            [n.encode() for n in names])
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


def cache_folder() -> Path:
    """Where machine code is kept: below XDG_CACHE_HOME or ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "kernelyard" / "cuda_pycuda"


def cubin(file: str, defines: Defines, target: str) -> bytes:
    """Machine code of `cuda/<file>` for `target` (such as sm_90a), from the cache if there.

    Raises BackendError with the compiler's log.
    """
    flags, tool = _flags(defines), toolchain()
    text = [read(file), *(f"{n}\n{read(n)}" for n in headers(file)), *flags, target, tool.version]
    key = hashlib.sha256("\0".join(text).encode()).hexdigest()[:32]
    path = cache_folder() / f"{Path(file).stem}-{target}-{key}.cubin"
    try:
        return path.read_bytes()
    except OSError:
        _announce()
        code, _ = compile_source(file, defines, target, tool)
        _store(path, code)
        return code


def compile_source(file: str, defines: Defines, target: str, tool: Toolchain) -> tuple[bytes, str]:
    """(machine code, ptxas's report), past the cache. Raises BackendError with the log."""
    try:
        return tool.compile(file, _flags(defines), target)
    except CompileError as error:
        raise BackendError(f"cuda_pycuda: {file} does not compile for {target} with "
                           f"{dict(defines)}:\n{error}") from error


def _flags(defines: Defines) -> list[str]:
    return [f"-D{k}={v}" for k, v in sorted(defines.items())]


@cache
def _announce() -> None:
    print(f"cuda_pycuda: compiling kernels for this GPU, once; they are kept in {cache_folder()}",
          file=sys.stderr)


@cache
def read(file: str) -> str:
    """The text of a source or a header."""
    return (SOURCES / file).read_text(encoding="utf-8")


@cache
def headers(file: str) -> list[str]:
    """The headers that a source includes, directly or through others."""
    found: list[str] = []
    for name in re.findall(r'#include "([^"]+)"', read(file)):
        found += [n for n in (name, *headers(name)) if n not in found]
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
