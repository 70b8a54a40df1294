"""Compiles two cases of every CUDA source, the first and the last, for sm_90a, with the oldest
NVRTC that is admitted.

`python tests/support/oldest_nvrtc.py` prints which release that is, for pip; with the folder into
which pip put it, compiles. tests/backends has every case and target, with the newest release.
"""

import ctypes
import sys
from pathlib import Path

from floors import ROOT, floors

TARGET = "sm_90a"
FLOOR = dict(floors((ROOT / "backends/cuda_pycuda/pyproject.toml").read_text()))[
    "nvidia-cuda-nvrtc"]


def preload(folder):
    """Load the release below `folder`: CuPy and cuda-bindings take what a process has loaded."""
    for name in ("libnvrtc-builtins.so*", "libnvrtc.so*"):
        path, = Path(folder).glob(f"nvidia/*/lib/{name}")
        ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)


def compile_all():
    """Compile, and return how many cases were compiled. Raises BackendError with the log."""
    import test_cuda_compile
    import test_cuda_pycuda_compile
    count = 0
    for module in (test_cuda_compile, test_cuda_pycuda_compile):
        tool = module.compiler.nvrtc()
        found = "".join(c for c in tool.version if c.isdigit())
        if found[:3] != FLOOR.replace(".", ""):
            raise SystemExit(f"error: {module.__name__} found {tool.version}, expected {FLOOR}")
        ends = [*{f: (f, d) for f, d in reversed(module.CASES)}.values(),
                *{f: (f, d) for f, d in module.CASES}.values()]
        for file, defines in (c for i, c in enumerate(ends) if c not in ends[:i]):
            module.compiler.sources.compile(file, defines, TARGET, tool)
            count += 1
    return count


if __name__ == "__main__":
    if len(sys.argv) < 2:
        print(f"nvidia-cuda-nvrtc=={FLOOR}.*")
    else:
        sys.path.insert(0, str(ROOT / "tests/backends"))
        preload(sys.argv[1])
        print(f"{compile_all()} cases of CUDA sources compile for {TARGET} with NVRTC {FLOOR}")
