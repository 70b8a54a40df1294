"""(moved)"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from core.errors import PluginError
from core.ir.op import Op, find_op
from core.ir.tolerance import Tolerance
from core.plugins.backend import BackendOptions, Launch
from core.tensor.dtype import DType, as_dtype
from core.tensor.tensor import TensorSpec

F = TypeVar("F", bound=Callable[..., Launch])


@dataclass(frozen=True)
class Call:
    """One node as a kernel's `supports` sees it: specs, attributes, bound dimensions and dtypes."""

    op: Op
    inputs: Mapping[str, TensorSpec | None]
    attrs: Mapping[str, Any]
    dims: Mapping[str, int]
    dtypes: Mapping[str, DType]

    @property
    def phase(self) -> str:
        """`decode` when there are no more tokens than sequences, else `prefill`: a word for
        ledgers. In a ragged batch a sequence may have more: kernels read `query_starts`."""
        return "decode" if self.dims.get("T", 1) <= self.dims.get("S", 1) else "prefill"


Supports = Callable[[Call], str | None]


Packs = Callable[[Call], Mapping[str, TensorSpec]]


@dataclass(frozen=True, eq=False)
class Kernel:
    """A registered kernel. See `KernelSet.implements` for the fields."""

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

    @property
    def id(self) -> str:
        return f"{self.backend}:{self.name}"

    def refuses(self, call: Call) -> str | None:
        """None if this kernel takes the call, else the reason."""
        for var, allowed in self.dtypes.items():
            found = call.dtypes.get(var)
            if found is not None and found not in allowed:
                return f"{var} is {found}, takes {' '.join(map(str, allowed))}"
        reason = self.supports(call) if self.supports is not None else None
        if reason is not None and not isinstance(reason, str):
            raise PluginError(f"kernel {self.id}: supports() returned {reason!r}, expected None or "
                              "the reason for refusing")
        return reason


class KernelSet:
    """The kernels of one backend package, in a list for its `register_kernels` hook."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self._kernels: list[Kernel] = []

    def implements(self, op: str, *, dtypes: Mapping[str, str], name: str | None = None,
                   supports: Supports | None = None, priority: int = 0,
                   prepare: Callable[..., None] | None = None, packs: Packs | None = None,
                   workspace: Callable[[Call], TensorSpec] | None = None,
                   deterministic: bool = True, batch_invariant: bool = False,
                   tolerance: Tolerance | None = None,
                   option: str | None = None) -> Callable[[F], F]:
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

        The conformance suite tests the two flags. The function's parameters are the op's inputs,
        then its new outputs, then as keywords its attributes, by the op's names.
        """
        if option is not None and option not in BackendOptions.__dataclass_fields__:
            raise PluginError(f"kernel of {self.backend} for {op}: option {option!r} is no field "
                              "of core.plugins.backend.BackendOptions")

        def declare(bind: F) -> F:
            self._kernels.append(Kernel(
                op, self.backend, name or bind.__name__, bind,
                {var: tuple(as_dtype(d) for d in text.split()) for var, text in dtypes.items()},
                supports, priority, prepare, packs, workspace, deterministic, batch_invariant,
                tolerance, option))
            return bind
        return declare

    def __iter__(self) -> Iterator[Kernel]:
        return iter(self._kernels)


def check_kernel(kernel: Kernel) -> None:
    """Raise PluginError unless the kernel's parameters and dtypes are those of its op."""
    op = find_op(kernel.op)
    parameters = inspect.signature(kernel.bind).parameters.values()
    found = ([p.name for p in parameters if p.kind is not p.KEYWORD_ONLY],
             sorted(p.name for p in parameters if p.kind is p.KEYWORD_ONLY))
    keywords = [k for k, a in op.attributes.items() if not a.structural]
    if kernel.workspace is not None:
        keywords.append("workspace")
    expected = ([*(p.name for p in op.sig.params), *(p.name for p in op.sig.outputs)],
                sorted(keywords))
    where = inspect.getsourcefile(kernel.bind) or "?"
    if found != expected:
        raise PluginError(
            f"kernel {kernel.id} ({where}) has parameters {_show(*found)}, but op {op.name} "
            f"({inspect.getsourcefile(type(op))}) declares {_show(*expected)}")
    if (kernel.prepare is None) != (kernel.packs is None):
        raise PluginError(f"kernel {kernel.id} ({where}) has only one of prepare and packs: packs "
                          "gives the specs of what prepare fills")
    variables = {p.dtype for p in (*op.sig.params, *op.sig.outputs) if p.dtype_is_variable}
    if set(kernel.dtypes) != variables:
        raise PluginError(f"kernel {kernel.id} ({where}) gives dtypes for {sorted(kernel.dtypes)}, "
                          f"but op {op.name} has the dtype variables {sorted(variables)}")


def _show(positional: list[str], keywords: list[str]) -> str:
    return f"({', '.join([*positional, *(['*'] if keywords else []), *keywords])})"


