"""Shows a plugin written for API 1, as its documentation was then; it must load for ever.

It has a backend, kernels (one for an op that has another name today), an op and a fused op of its
own, and a file format.
"""

from functools import partial

import numpy as np

from core.backend import Backend, BackendSpec, KernelSet
from core.compare import Tolerance
from core.dtype import f32
from core.errors import ShapeError
from core.fused import FusedOp
from core.hookspecs import hookimpl
from core.host import HostAllocator
from core.op import Attr, Op, need
from core.samples import Draw, ErrorSample, Sample, spec, uniform
from core.tensor import TensorSpec

KERNELYARD_API = 1
kernels = KernelSet("v1")


class V1(Backend):
    name = "v1"

    def __init__(self):
        self.allocator = HostAllocator()

    def native(self, tensor):
        return tensor.numpy()


class Twice(Op):
    """Multiplies by a factor, 2 by default."""

    name = "v1_twice"
    signature = "x A[T,D] -> out A[T,D]"
    attributes = {"factor": Attr(float, 2.0)}  # noqa: RUF012
    dtype_cases = uniform("A")
    tolerance = Tolerance(1, 0.5, "one product")

    def reference(self, x, *, factor):
        return x * x.dtype.type(factor)

    def check(self, env, attrs):
        need(attrs["factor"] is not None, "factor is None")

    def samples(self):
        def make(r: Draw):
            return {"x": r.normal(3, 8)}
        return [Sample("T3_D8", make, {}), Sample("T1_D5", lambda r: {"x": r.normal(1, 5)}, {})]

    def error_samples(self):
        return [ErrorSample({"x": spec("f32[4]")}, {}, ShapeError, "2 axes")]


class NormTwice(FusedOp):
    """Joins rms_norm and twice."""

    name = "v1_norm_twice"
    signature = "x A[T,D], weight W[D] -> out A[T,D]"
    attributes = {"eps": Attr(float)}  # noqa: RUF012
    dtype_cases = uniform("A", "W")
    tolerance = Tolerance(4, 4, "as rms_norm")

    def compose(self, g, x, weight, *, eps):
        return g.add("v1_twice", g.add("rms_norm", x, weight, eps=eps))

    def samples(self):
        return [Sample("T3_D8", lambda r: {"x": r.normal(3, 8), "weight": r.normal(8)},
                       {"eps": 1e-5})]

    def error_samples(self):
        return [ErrorSample({"x": spec("f32[2,8]"), "weight": spec("f32[9]")}, {"eps": 1e-5},
                            ShapeError, "weight")]


def scratch(call):
    return TensorSpec((call.dims["T"], call.dims["D"]), f32)


@kernels.implements("rms_norm", dtypes={"A": "f32", "W": "f32"}, workspace=scratch)
def rms_norm(x, weight, out, *, eps, workspace):
    def launch():
        np.multiply(x, x, out=workspace)
        scale = np.sqrt(workspace.mean(-1, keepdims=True) + eps)
        np.multiply(x / scale, weight, out=out)
    return launch


@kernels.implements("three_linear", dtypes={"A": "f32", "W": "f32"})
def three_linear(x, first, second, third, first_bias, second_bias, third_bias, first_out,
                 second_out, third_out):
    def launch():
        for weight, bias, out in ((first, first_bias, first_out), (second, second_bias, second_out),
                                  (third, third_bias, third_out)):
            np.matmul(x, weight.T, out=out)
            if bias is not None:
                np.add(out, bias, out=out)
    return launch


@kernels.implements("v1_twice", dtypes={"A": "f32"})
def twice(x, out, *, factor):
    return partial(np.multiply, x, np.float32(factor), out)


@kernels.implements("v1_norm_twice", dtypes={"A": "f32", "W": "f32"},
                    tolerance=Tolerance(8, 8, "twice the op's"))
def norm_twice(x, weight, out, *, eps):
    def launch():
        np.multiply(x / np.sqrt((x * x).mean(-1, keepdims=True) + eps), 2 * weight, out=out)
    return launch


class V1File:
    """Reads `.v1` files: each names a model that ships with the package."""

    name, key = "v1 file", "v1"

    def recognises(self, path):
        return path.suffix == ".v1"

    def read(self, path):
        from models.checkpoints.base import SHIPPED
        from models.checkpoints.huggingface.folder import HuggingFaceFolder
        return HuggingFaceFolder().read(SHIPPED / path.read_text().strip(), {})


@hookimpl
def register_backends(register):
    register(BackendSpec("v1", "cpu", "v1:V1", "written for API 1"))


@hookimpl
def register_kernels(backend, register):
    if backend == "v1":
        for kernel in kernels:
            register(kernel)


@hookimpl
def register_ops(register):
    register(Twice())
    register(NormTwice())


@hookimpl
def register_checkpoints(register):
    register(V1File())
