"""kernelyard core: holds tensors, ops, graphs, plugins, and the plan that binds them.

These names are the public face: what a plugin or a script needs. docs/plugin-api.md lists them with
the rule by which they may change. Everything else in these folders may move.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from core import errors
from core.devices import reference
from core.installed import api1
from core.interrupts import held_interrupts
from core.ir.examples import ErrorExample, Example
from core.ir.fusion import FusedOp
from core.ir.op import Attr, Op
from core.ir.tolerance import Tolerance
from core.plugins.backend import API_VERSION, Backend, BackendOptions, BackendSpec, Launch
from core.plugins.hookspecs import hookimpl
from core.plugins.kernel import Call, KernelSet
from core.tensor.allocator import Buffer, DeviceAllocator
from core.tensor.dtype import DType, bf16, f16, f32, i4x2, i8, i32
from core.tensor.host import HostAllocator
from core.tensor.suballocator import Suballocator
from core.tensor.tensor import Tensor, TensorSpec

if TYPE_CHECKING:
    from core.devices import cuda
    from core.devices.code_cache import CodeCache
    from core.runtime.run_op import run_op

__version__ = "0.1.0"
__all__ = [
    "API_VERSION", "Attr", "Backend", "BackendOptions", "BackendSpec", "Buffer", "Call",
    "CodeCache", "DType", "DeviceAllocator", "ErrorExample", "Example", "FusedOp", "HostAllocator",
    "KernelSet", "Launch", "Op", "Suballocator", "Tensor", "TensorSpec", "Tolerance", "__version__",
    "bf16", "cuda", "errors", "f16", "f32", "held_interrupts",
    "hookimpl", "i4x2", "i8", "i32", "run_op",
]

#: public name -> its module, imported when the name is first used: not every program needs it
_LATE = {"CodeCache": "devices.code_cache", "cuda": "devices.cuda", "run_op": "runtime.run_op"}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a class, a module or a function
    """Return a public name of `_LATE`, and keep it."""
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"core.{_LATE[name]}")
    found = globals()[name] = module if name == "cuda" else getattr(module, name)
    return found


api1.serve()
reference.serve()
