"""Offers one bad kernel of the zoo, the one that ZOO in the environment names, as a plugin would.

`bad.py` lists the kernels with what is wrong and what a tool that names them must say. `run.py`
tries one kernel with every tool, `table.py` writes the table of docs/find-the-bad-kernel.md.
"""

import os

from core import Backend, BackendSpec, HostAllocator, KernelSet, hookimpl

KERNELYARD_API = 2


class Zoo(Backend):
    def __init__(self):
        self.allocator = HostAllocator()

    def native(self, tensor):
        return tensor.numpy()


@hookimpl
def register_backends(register):
    register(BackendSpec("zoo", "cpu", "zoo:Zoo", "bad kernels"))


@hookimpl
def register_kernels(backend, register):
    if backend == "zoo":
        from zoo.bad import BAD
        kernels = KernelSet("zoo")
        bad = BAD[os.environ["ZOO"]]
        kernels.implements(bad.op, dtypes=bad.dtypes, name=bad.op, **bad.hooks)(bad.bind)
        for kernel in kernels:
            register(kernel)
