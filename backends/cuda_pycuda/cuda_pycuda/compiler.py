"""Compiles CUDA sources by nvcc or, where that is missing, NVRTC, with a cache on disk."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from core import CodeCache, cuda
from core.errors import unavailable

sources = cuda.Sources("cuda_pycuda", Path(__file__).parent / "cuda")


def nvcc() -> cuda.Compiler | None:
    """Return the CUDA toolkit's compiler, if it is on the path."""
    program = shutil.which("nvcc")
    if program is None:
        return None

    def run(path: Path, flags: list[str]) -> tuple[bytes, str]:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "kernel.cubin"
            done = subprocess.run([program, "-cubin", *flags, "-o", str(out), str(path)],
                                  capture_output=True, text=True, check=False)
            if done.returncode:
                raise cuda.CompileError(done.stdout + done.stderr)
            return out.read_bytes(), done.stderr
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return cuda.Compiler(version.stdout, run)


def nvrtc() -> cuda.Compiler | None:
    """Return NVIDIA's compiler as a library, through cuda-bindings, if it can be loaded."""
    try:
        from cuda.bindings import nvrtc as rtc
        version = rtc.nvrtcVersion()
    except Exception:  # cuda-bindings says by a RuntimeError of its own that there is no library
        return None

    def run(path: Path, flags: list[str]) -> tuple[bytes, str]:
        included = CodeCache.headers(path)
        _, program = rtc.nvrtcCreateProgram(
            CodeCache.source(path).encode(), path.name.encode(), len(included),
            [CodeCache.source(h).encode() for h in included], [h.name.encode() for h in included])
        status, = rtc.nvrtcCompileProgram(program, len(flags), [f.encode() for f in flags])
        log = bytearray(rtc.nvrtcGetProgramLogSize(program)[1])
        rtc.nvrtcGetProgramLog(program, log)
        text = log.decode(errors="replace").rstrip("\0")
        if int(status):
            raise cuda.CompileError(text)
        code = bytearray(rtc.nvrtcGetCUBINSize(program)[1])
        rtc.nvrtcGetCUBIN(program, code)
        rtc.nvrtcDestroyProgram(program)
        return bytes(code), text
    return cuda.Compiler(f"nvrtc {version[1]}.{version[2]}", run)


@cache
def compiler() -> cuda.Compiler:
    """Return the compiler of this machine. Raises BackendError saying how to get one."""
    found = nvcc() or nvrtc()
    if found is None:
        raise unavailable("cuda_pycuda", "neither nvcc nor NVRTC, which compile the kernels, is "
                          "found", "pip install nvidia-cuda-nvrtc")
    return found
