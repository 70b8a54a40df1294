"""Writes an installed backend package, for tests that need one to be wrong in a chosen way."""

from pathlib import Path

PLUGIN = '''
from core import BackendSpec, hookimpl

KERNELYARD_API = 2


@hookimpl
def register_backends(register):
    register(BackendSpec("example", "cpu", "example.backend:Example", "for tests"))


@hookimpl
def register_kernels(backend, register):
    if backend == "example":
        from example.backend import kernels
        for kernel in kernels:
            register(kernel)
'''

BACKEND = '''
from functools import partial

import numpy as np

from core import Backend, HostAllocator, KernelSet, Tolerance

kernels = KernelSet("example")


class Example(Backend):
    name = "example"

    def __init__(self):
        self.allocator = HostAllocator()

    def native(self, tensor):
        return tensor.numpy()


'''


def install(site: Path, kernels: str, known_failures: str = "") -> Path:
    """Make `site` a folder for PYTHONPATH that holds the backend `example` with these kernels."""
    package, info = site / "example", site / "kernelyard_example-1.0.dist-info"
    package.mkdir(parents=True, exist_ok=True)
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: kernelyard-example\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[kernelyard.plugins]\nexample = example.plugin\n")
    (package / "__init__.py").write_text("")
    (package / "plugin.py").write_text(PLUGIN)
    (package / "backend.py").write_text(BACKEND + kernels)
    if known_failures:
        (package / "known_failures.txt").write_text(known_failures)
    return site
