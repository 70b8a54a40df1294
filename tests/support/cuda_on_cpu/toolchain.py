"""Drives g++ as cuda_pycuda's compiler."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

from core.devices.code_cache import source
from core.devices.cuda import CompileError, Compiler
from cuda_pycuda.compiler import sources

HERE = Path(__file__).parent
OPTIONS = ("-std=c++17", "-O1", "-march=native", "-ffp-contract=off", "-shared", "-fPIC", "-w",
           "-Wl,-Bsymbolic")


def toolchain(folder: Path) -> Compiler:
    """Put the sources into `folder`, with the stand-in among them; libraries are made there."""
    folder.mkdir(exist_ok=True)
    for path in sources.files().values():
        shutil.copy(path, folder)
    for name in ("machine.h", "ptx.cuh"):
        shutil.copy(HERE / name, folder)
    compiled_header = folder / "machine.h.gch"  # which g++ takes in the header's place

    @cache
    def version() -> str:
        tool = subprocess.run(["g++", "--version"], capture_output=True, text=True, check=True)
        return tool.stdout + (HERE / "machine.h").read_text() + (HERE / "ptx.cuh").read_text()

    def run(path: Path, flags: list[str]) -> tuple[bytes, str]:
        if not compiled_header.exists():
            subprocess.run(["g++", *OPTIONS, "-x", "c++-header", str(folder / "machine.h"), "-o",
                            str(compiled_header)], check=True)
        defines = [flag.replace("-D", "#define ").replace("=", " ") for flag in flags
                   if flag.startswith("-D")]
        # with these defines the file may have only some of its kernels
        text = _gcc("-E", "-P", source="\n".join([*defines, source(path)]), folder=folder)
        entries = re.findall(r"__global__ void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\(", text)
        out = folder / "kernel.so"
        report = _gcc(*OPTIONS, "-o", str(out), folder=folder, source="\n".join([
            '#include "machine.h"', *defines, f'#include "{path.name}"',
            *(f"ENTRY({e})" for e in entries)]))
        return out.read_bytes(), report
    return Compiler(version(), run)


def _gcc(*options: str, source: str, folder: Path) -> str:
    done = subprocess.run(["g++", f"-I{folder}", *options, "-x", "c++", "-"], input=source,
                          capture_output=True, text=True, check=False)
    if done.returncode:
        raise CompileError(done.stderr)
    return done.stdout
