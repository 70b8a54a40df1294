"""Makes the float64 definitions a backend of last resort, in the host's memory.

`--backend cuda_cupy,reference` computes what cuda_cupy has no kernel for by the op's own reference:
a new op runs in every tool on its first day. It is slow, and its results are rounded once.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np

from core.installed.registry import BUILT_IN, REFERENCE
from core.ir.op import OPS, Op
from core.plugins.backend import Backend, BackendSpec, Launch
from core.plugins.kernel import Kernel
from core.tensor.dtype import ALL, as_dtype, i4x2
from core.tensor.host import HostAllocator
from core.tensor.tensor import Array, Tensor, TensorSpec


class ReferenceBackend(Backend):
    """Computes each op by its float64 reference, in the host's memory."""

    name = REFERENCE

    def __init__(self) -> None:
        self.allocator = HostAllocator()

    def native(self, tensor: Tensor) -> Array:
        return tensor.numpy()

    def describe(self) -> str:
        return "the ops' float64 references, rounded once"


def definitions() -> Iterator[Kernel]:
    """Yield a kernel for every op that is known now, plugins' ops included."""
    for op in OPS.values():
        variables = {p.dtype for p in (*op.sig.params, *op.sig.outputs) if p.dtype_is_variable}
        yield Kernel(op.name, REFERENCE, "definition", _binder(op), dict.fromkeys(variables, ALL))


def _binder(op: Op) -> Any:  # noqa: ANN401 - a function whose parameters are the op's
    names = [p.name for p in (*op.sig.params, *op.sig.outputs)]

    def bind(*arrays: Array | None, **attrs: Any) -> Launch:  # noqa: ANN401
        given = dict(zip(names, arrays, strict=True))
        inputs = {p.name: given[p.name] for p in op.sig.params}
        full = op.complete(attrs)
        env = op.bind({k: None if a is None else _spec(op, k, a) for k, a in inputs.items()}, full)

        def launch() -> None:
            with np.errstate(all="ignore"):
                results = op.reference_in(np.float64, inputs, env, full)
            for name, result in zip(op.result_names, results, strict=True):
                target = given[name]
                if target is not None and result is not None:
                    with np.errstate(all="ignore"):
                        np.copyto(target, result, casting="unsafe")
        return launch

    positional, keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    bind.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [*(inspect.Parameter(n, positional) for n in names),
         *(inspect.Parameter(n, keyword) for n in op.plain_attributes)])
    return bind


def _spec(op: Op, name: str, array: Array) -> TensorSpec:
    """Return an input's spec; bytes in place of codes hold two of them each."""
    (param,) = (p for p in op.sig.params if p.name == name)
    packed = param.dtype_is_variable and array.dtype == np.uint8
    return TensorSpec(array.shape, i4x2 if packed else as_dtype(array.dtype))


def serve() -> None:
    """Let every registry know the backend."""
    BUILT_IN[REFERENCE] = (BackendSpec(REFERENCE, "cpu", f"{__name__}:ReferenceBackend",
                                       "the ops' float64 references"), definitions)
