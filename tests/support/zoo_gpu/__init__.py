"""Offers a CUDA backend one bad rms_norm, as a plugin of somebody else would.

In the environment ZOO_GPU names the backend, cuda_cupy or cuda_pycuda, and ZOO_FAULT the fault, one
of `FAULTS`. The kernel is in `zoo.cu`; each backend compiles and launches it by its own code.
"""

import os
from importlib import import_module
from pathlib import Path

from core import KernelSet, hookimpl

KERNELYARD_API = 2
FILE = Path(__file__).with_name("zoo.cu")
THREADS = 128
#: fault -> a regular expression for what a tool that names the kernel says of it
FAULTS = {
    "right": "",
    "beyond": "[Ww]rote 4 bytes beyond `out`",
    "far beyond": "[Ww]rote 64 bytes (that belong to no tensor|into other tensors)",
    "before": "[Ww]rote 4 bytes before `out`",
    "input": "changed (its )?input `x`",
    "shared race": "differ|WRONG|is wrong",
    "global race": "differ|WRONG|is wrong",
    "illegal": "illegal|misaligned|unspecified launch failure|ended Python|killed by",
    "trap": "trap|illegal|unspecified launch failure|ended Python|killed by",
    "endless": "took over"}


@hookimpl
def register_kernels(backend, register):
    if backend != os.environ.get("ZOO_GPU"):
        return
    kernels, fault = KernelSet(backend), list(FAULTS).index(os.environ["ZOO_FAULT"])

    @kernels.implements("rms_norm", dtypes={"A": "f32", "W": "f32"}, name="bad_rms_norm",
                        priority=1000)
    def bad_rms_norm(x, weight, out, *, eps):
        rows, width = x.shape
        return import_module(f"{backend}.launch").launch(
            str(FILE), "bad_rms_norm", (rows,), THREADS, (x, weight, out, rows, width, float(eps)),
            defines={"FAULT": fault})
    for kernel in kernels:
        register(kernel)
