"""Adds a second device for tests: memory that the host cannot read in place, and a kernel for
`add`."""

from functools import partial

import numpy as np

from core.plugins.backend import BackendSpec
from core.plugins.hookspecs import hookimpl
from core.plugins.kernel import KernelSet
from core.tensor.host import HostAllocator
from cpu_numpy.backend import NumpyBackend

KERNELYARD_API = 2
kernels = KernelSet("toy")
captured = []


class ToyAllocator(HostAllocator):
    device = "toy:0"

    def borrow_host(self, array):
        return None

    def host_view(self, buffer):
        return None


class ToyBackend(NumpyBackend):
    def __init__(self):
        self.allocator = ToyAllocator()

    def native(self, tensor):
        return np.ndarray(tensor.shape, tensor.dtype.numpy, tensor.buffer.handle, tensor.offset)

    def capture(self, launch):
        captured.append(launch)
        return launch


def refuse_two_rows(call):
    return "takes no two rows" if call.dims["T"] == 2 else None


@kernels.implements("add", dtypes={"A": "f32"}, supports=refuse_two_rows)
def add(a, b, out):
    return partial(np.add, a, b, out)


@kernels.implements("add", dtypes={"A": "f32"}, name="slow_add", priority=-1)
def slow_add(a, b, out):
    return partial(np.add, a, b, out)


@kernels.implements("softmax", dtypes={"A": "f16"})
def softmax(x, out):
    raise AssertionError("never bound: no test asks for f16 here")


@hookimpl
def register_backends(register):
    register(BackendSpec("toy", "toy", "toy_backend:ToyBackend", "for tests"))


@hookimpl
def register_kernels(backend, register):
    if backend == "toy":
        for kernel in kernels:
            register(kernel)
