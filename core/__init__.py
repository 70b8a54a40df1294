"""kernelyard core: holds tensors, ops, graphs, plugins, and the plan that binds them.

These names are the public face: what a plugin or a script needs. docs/plugin-api.md lists them with
the rule by which they may change. Everything else in these folders may move.
"""

from core import errors
from core.devices import cuda, reference
from core.devices.code_cache import CodeCache
from core.installed import api1
from core.interrupts import held_interrupts
from core.ir.examples import ErrorExample, Example
from core.ir.fusion import FusedOp
from core.ir.op import Attr, Op
from core.ir.tolerance import Tolerance
from core.plugins.backend import API_VERSION, Backend, BackendOptions, BackendSpec, Launch
from core.plugins.hookspecs import hookimpl
from core.plugins.kernel import Call, KernelSet
from core.runtime.run_op import run_op
from core.tensor.allocator import Buffer, DeviceAllocator
from core.tensor.dtype import DType, bf16, f16, f32, i4x2, i8, i32
from core.tensor.host import HostAllocator
from core.tensor.suballocator import Suballocator
from core.tensor.tensor import Tensor, TensorSpec

__version__ = "0.1.0"
__all__ = [
    "API_VERSION", "Attr", "Backend", "BackendOptions", "BackendSpec", "Buffer", "Call",
    "CodeCache", "DType", "DeviceAllocator", "ErrorExample", "Example", "FusedOp", "HostAllocator",
    "KernelSet", "Launch", "Op", "Suballocator", "Tensor", "TensorSpec", "Tolerance", "__version__",
    "bf16", "cuda", "errors", "f16", "f32", "held_interrupts",
    "hookimpl", "i4x2", "i8", "i32", "run_op",
]

api1.serve()
reference.serve()
