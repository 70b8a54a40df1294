"""Kernels: declares functions that bind an op to arrays, and the set that a package registers.

A kernel is called once for each node of a plan, with the backend's native arrays, and returns a
zero-argument callable that the plan runs each step.

    kernels = KernelSet("my_backend")

    @kernels.implements("add", dtypes={"A": "f32"})
    def add(a, b, out):
        return partial(np.add, a, b, out)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from types import MappingProxyType
from typing import Any, TypeVar

from core.errors import PluginError
from core.failures import ask, bound, naming
from core.ir.op import REQUIRED, Op, find_op
from core.ir.tolerance import Tolerance
from core.plugins.backend import BackendOptions, Launch
from core.tensor.dtype import DType, as_dtype
from core.tensor.tensor import TensorSpec

F = TypeVar("F", bound=Callable[..., Launch])


@dataclass(frozen=True)
class Call:
    """Describe one node to a kernel's `supports`: specs, attributes, bound dimensions and
    dtypes."""

    op: Op
    inputs: Mapping[str, TensorSpec | None]
    attrs: Mapping[str, Any]
    dims: Mapping[str, int]
    dtypes: Mapping[str, DType]
    node: str = ""  #: for messages

    def __post_init__(self) -> None:
        """Let no kernel change what others, and the reference, compute by."""
        for name in ("inputs", "attrs", "dims", "dtypes"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    def at(self, node: str) -> Call:
        """Return the call of another node that is alike; both share one object of each mapping."""
        other = object.__new__(Call)
        other.__dict__.update(self.__dict__, node=node)
        return other

    @property
    def phase(self) -> str:
        """Return `decode` when there are no more tokens than sequences, else `prefill`: a word for
        ledgers. In a ragged batch a sequence may have more: kernels read `query_starts`."""
        return "decode" if self.dims.get("T", 1) <= self.dims.get("S", 1) else "prefill"


Supports = Callable[[Call], str | None]
Packs = Callable[[Call], Mapping[str, TensorSpec]]


@dataclass(frozen=True, eq=False)
class Kernel:
    """Hold a registered kernel. See `KernelSet.implements` for the fields."""

    op: str
    backend: str
    name: str
    bind: Callable[..., Launch]
    dtypes: Mapping[str, tuple[DType, ...]]
    supports: Supports | None = None
    priority: int = 0
    prepare: Callable[..., None] | None = None
    packs: Packs | None = None
    workspace: Callable[[Call], TensorSpec] | None = None
    deterministic: bool = True
    batch_invariant: bool = False
    tolerance: Tolerance | None = None
    option: str | None = None
    family: str | None = None
    machine: Callable[[], str | None] | None = None

    @property
    def id(self) -> str:
        return f"{self.backend}:{self.name}"

    @cached_property
    def takes(self) -> frozenset[str]:
        """Hold the names of the kernel's parameters. It may leave out what has a default."""
        return frozenset(inspect.signature(self.bind).parameters)

    def bind_to(self, call: Call, arrays: Mapping[str, Any], wait: Launch) -> Launch:
        """Bind native arrays by name: inputs (None for an absent one), outputs, `workspace`. `wait`
        waits for the device. Raises KernelError."""
        positional = [arrays[name] for name in _positional(self, call.op)]
        keywords = {k: v for k, v in call.attrs.items() if k in self.takes}
        if "workspace" in arrays:
            keywords["workspace"] = arrays["workspace"]
        with naming("bind", self, call):
            launch = self.bind(*positional, **keywords)
        return bound(launch, self, call, wait)

    def refuses(self, call: Call) -> str | None:
        """Return None if this kernel takes the call, else the reason. Raises KernelError."""
        for var, allowed in self.dtypes.items():
            found = call.dtypes.get(var)
            if found is not None and found not in allowed:
                return f"{var} is {found}, takes {' '.join(map(str, allowed))}"
        for name in self._left_out(call.op):
            value = call.inputs.get(name, call.attrs.get(name))
            default = call.op.attributes[name].default if name in call.op.attributes else None
            if value != default:
                return f"takes no `{name}`"
        reasons = (ask(self, what, call) for what in ("machine", "supports")
                   if getattr(self, what) is not None)
        return next(filter(None, reasons), None)

    def _left_out(self, op: Op) -> list[str]:
        """List the op's inputs and attributes that this kernel has no parameter for."""
        names = [*(p.name for p in op.sig.params), *op.plain_attributes]
        return [n for n in names if n not in self.takes]


@cache
def _positional(kernel: Kernel, op: Op) -> list[str]:
    """List the inputs that the kernel takes, and the outputs."""
    return [*(p.name for p in op.sig.params if p.name in kernel.takes),
            *(p.name for p in op.sig.outputs)]


class KernelSet:
    """List the kernels of one backend package for its `register_kernels` hook."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self._kernels: list[Kernel] = []

    def implements(self, op: str, *, dtypes: Mapping[str, str], name: str | None = None,
                   supports: Supports | None = None, priority: int = 0,
                   prepare: Callable[..., None] | None = None, packs: Packs | None = None,
                   workspace: Callable[[Call], TensorSpec] | None = None,
                   deterministic: bool = True, batch_invariant: bool = False,
                   tolerance: Tolerance | None = None, option: str | None = None,
                   family: str | None = None,
                   machine: Callable[[], str | None] | None = None) -> Callable[[F], F]:
        """Declare the decorated function a kernel for `op`; the function itself is unchanged.

        dtypes     for each dtype variable of the signature, the dtypes taken: {"A": "f32 bf16"}
        supports   a predicate on the Call: None, or the reason for refusing
        priority   among this backend's kernels for the op, higher is tried first
        packs      for a Call, the specs of the arrays that `bind` gets in place of weights, by
                   parameter name: known before anything is loaded, so that memory can be planned
        prepare    fills them, once for each set of weights: called with the Call, the arrays by
                   name as `packed`, and the weights' native arrays by parameter name. Kernels with
                   the same `prepare` and attributes share the result
        workspace  the spec of a scratch tensor, given to `bind` as keyword `workspace`
        deterministic    equal inputs give equal bits, run after run
        batch_invariant  a row's bits do not depend on the rows beside it
        tolerance        the kernel's own, where it cannot meet its op's. The conformance suite then
                         judges by it, and every report says so beside the op's budget
        option           a field of `BackendOptions`: the kernel is chosen only where the user set
                         it, such as "allow_tf32", or named the kernel itself
        family           all kernels of the backend with this name give a row equal bits, for any
                         number of rows; those of a fused op the bits of its parts'. Implies
                         batch_invariant
        machine    None, or why this machine runs the kernel for no call: an instruction it lacks

        The conformance suite tests flags and families. The parameters are the op's inputs, then its
        new outputs, then as keywords its attributes, by the op's names. It may leave out an input
        or attribute that has a default: calls in which that differs are refused for it.
        """
        if option is not None and option not in BackendOptions.__dataclass_fields__:
            raise PluginError(f"kernel of {self.backend} for {op}: option {option!r} is no field "
                              "of core.plugins.backend.BackendOptions")

        def declare(bind: F) -> F:
            self._kernels.append(Kernel(
                op, self.backend, name or bind.__name__, bind,
                {var: tuple(as_dtype(d) for d in text.split()) for var, text in dtypes.items()},
                supports, priority, prepare, packs, workspace, deterministic,
                batch_invariant or family is not None, tolerance, option, family, machine))
            return bind
        return declare

    def __iter__(self) -> Iterator[Kernel]:
        return iter(self._kernels)


def check_kernel(kernel: Kernel) -> None:
    """Raise PluginError unless the kernel's parameters and dtypes are those of its op.

    It may leave out optional inputs and attributes with a default.
    """
    op = find_op(kernel.op)
    where = inspect.getsourcefile(kernel.bind) or "?"
    parameters = inspect.signature(kernel.bind).parameters.values()
    found = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
    keywords = sorted(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)
    inputs = [p for p in op.sig.params if p.name in kernel.takes or not p.optional]
    outputs = [p.name for p in op.sig.outputs]
    named = [k for k in op.plain_attributes
             if k in kernel.takes or op.attributes[k].default is REQUIRED]
    named += ["workspace"] if kernel.workspace is not None else []
    if found != [*(p.name for p in inputs), *outputs] or keywords != sorted(named):
        raise PluginError(
            f"kernel {kernel.id} ({where}) has parameters {_show(found, keywords)}, but op "
            f"{op.name} ({inspect.getsourcefile(type(op))}) declares {_declared(op, kernel)}")
    if (kernel.prepare is None) != (kernel.packs is None):
        raise PluginError(f"kernel {kernel.id} ({where}) has only one of prepare and packs: packs "
                          "gives the specs of what prepare fills")
    every = {p.dtype for p in (*op.sig.params, *op.sig.outputs) if p.dtype_is_variable}
    least = {p.dtype for p in (*inputs, *op.sig.outputs) if p.dtype_is_variable}
    if not least <= set(kernel.dtypes) <= every:
        raise PluginError(f"kernel {kernel.id} ({where}) gives dtypes for {sorted(kernel.dtypes)}, "
                          f"but op {op.name} has the dtype variables {sorted(least)}")


def _declared(op: Op, kernel: Kernel) -> str:
    """Show the op's parameters; `=` marks one that a kernel may leave out."""
    positional = [p.name + ("=None" if p.optional else "") for p in op.sig.params]
    keywords = [k if (a := op.attributes[k]).default is REQUIRED else f"{k}={a.default!r}"
                for k in op.plain_attributes]
    keywords += ["workspace"] if kernel.workspace is not None else []
    return _show([*positional, *(p.name for p in op.sig.outputs)], keywords)


def _show(positional: list[str], keywords: list[str]) -> str:
    return f"({', '.join([*positional, *(['*'] if keywords else []), *keywords])})"
