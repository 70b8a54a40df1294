"""InvariantPolicy: chooses kernels that give a row the same bits for any number of rows, for
--batch-invariant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace

from core.ir.fusion import FusedOp
from core.ir.graph import Graph
from core.ir.signature import resolve
from core.plan.lower import make_call
from core.plan.policy import KernelPolicy, Refusals, Rule
from core.plugins.kernel import Call, Kernel
from core.tensor.tensor import TensorSpec

#: the dimensions that count rows: tokens, sequences, rows that sample
ROWS = ("T", "S", "R")
Misplaced = Callable[[Kernel], str | None]


@dataclass(frozen=True)
class InvariantPolicy(KernelPolicy):
    """Keeps each node to one family of kernels: that of the kernel chosen for one row.

    A fused kernel must be of the family of its parts: for a number of rows that it does not take,
    kernels of the parts compute them.
    """

    @classmethod
    def like(cls, policy: KernelPolicy) -> InvariantPolicy:
        """Return the policy with this rule."""
        return cls(**{f.name: getattr(policy, f.name) for f in fields(policy)})

    def choose(self, call: Call, node: str, misplaced: Misplaced) -> tuple[Kernel | None, Refusals]:
        if isinstance(call.op, FusedOp):
            families = {self._family(part, node, misplaced) for part in parts(call)}
            of = f"of its parts, {_listed(families)}"
        else:
            families = {self._family(call, node, misplaced)}
            of = f"of the kernel for one row, {_listed(families)}"

        def rule(kernel: Kernel, call: Call) -> str | None:
            if kernel.family is None:
                return _has_family(kernel, call)
            if families == {(kernel.backend, kernel.family)}:
                return None
            return f"--batch-invariant: is of family {kernel.family}, expected that {of}"
        return self._by(rule).choose(call, node, misplaced)

    def _by(self, rule: Rule) -> KernelPolicy:
        return KernelPolicy(self.registry, self.backends, self.overrides, (*self.rules, rule))

    def _family(self, call: Call, node: str, misplaced: Misplaced) -> tuple[str, str] | None:
        """Return backend and family of the kernel that computes one row, None where none can."""
        kernel, _ = self._by(_has_family).choose(one_row(call), node, misplaced)
        return None if kernel is None or kernel.family is None else (kernel.backend, kernel.family)


def _has_family(kernel: Kernel, call: Call) -> str | None:
    return None if kernel.family is not None else (
        "--batch-invariant: declares no family, so a row's bits may depend on the number of rows")


def _listed(families: set[tuple[str, str] | None]) -> str:
    return " and ".join(sorted("none" if f is None else f"{f[1]} of {f[0]}" for f in families))


def one_row(call: Call) -> Call:
    """Return the call with one row: of tokens, of sequences, or that samples."""
    dims = {name: 1 if name in ROWS else size for name, size in call.dims.items()}
    inputs = {p.name: spec if spec is None else TensorSpec(
        tuple(resolve(d, dims) for d in p.dims), spec.dtype)
        for p in call.op.sig.params for spec in (call.inputs.get(p.name),)}
    return replace(call, inputs=inputs, dims=dims)


def parts(call: Call) -> Iterator[Call]:
    """Yield the calls that a call of a fused op is composed of."""
    graph = Graph(call.op.name)
    values = [None if s is None else graph.input(k, s) for k, s in call.inputs.items()]
    assert isinstance(call.op, FusedOp)
    call.op.compose(graph, *values, **call.attrs)
    for node in graph.nodes:
        yield make_call(node.op, node.inputs, node.attrs)
