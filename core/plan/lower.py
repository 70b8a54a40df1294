"""Chooser: from a graph and a preference to steps, each one kernel over one node or several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from core.errors import OpError
from core.ir.fusion import FusedOp
from core.ir.graph import Graph, Node, Value
from core.ir.match import Match, find_matches
from core.ir.op import OPS, Op
from core.ir.tolerance import Tolerance
from core.plan.policy import Refusals, Selector
from core.plugins.backend import Launch
from core.plugins.kernel import Call, Kernel
from core.tensor.tensor import Tensor


@dataclass
class Step:
    """One kernel and the values it reads and makes; the plan binds it to tensors.

    `covers` are the graph nodes that it computes. It runs where the last of them stood.
    """

    node: Node
    op: Op
    call: Call
    kernel: Kernel
    device: str
    refused: Refusals
    inputs: Mapping[str, Value | None]
    outputs: Mapping[str, Value]
    covers: tuple[Node, ...]
    arguments: dict[str, Tensor] = field(default_factory=dict)
    results: dict[str, Tensor] = field(default_factory=dict)
    launches: list[Launch] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def tolerance(self) -> Tolerance:
        """What the results are judged by: the kernel's own where it declares one."""
        return self.kernel.tolerance or self.op.tolerance


class Chooser:
    """Chooses a kernel for every node. `home` is the device on which each value is made."""

    def __init__(self, graph: Graph, selector: Selector) -> None:
        self.graph, self.selector = graph, selector
        first = selector.primary.allocator.device
        self.home = {v: first for kind in ("input", "state") for v in graph.roots(kind)}
        self._order = {node: i for i, node in enumerate(graph.nodes)}
        self._refused_fusions: dict[Node, Refusals] = {}

    def steps(self, *, fusion: bool | None = None) -> list[Step]:
        """Steps in execution order. Raises NoKernelError for a node that nothing takes."""
        wanted = self.selector.fusion if fusion is None else fusion
        fused, claimed = self._fuse() if wanted else ({}, set())
        steps = []
        for node in self.graph.nodes:
            if node in claimed and node not in fused:
                continue
            step = fused.get(node) or self._choose(node)
            for value in step.outputs.values():
                self.home.setdefault(value.root, step.device)
            steps.append(step)
        return steps

    def _choose(self, node: Node) -> Step:
        call = make_call(node.op, node.inputs, node.attrs)
        kernel, refused = self.selector.choose(call, node.name,
                                               partial(self._misplaced, inputs=node.inputs))
        refused = self._refused_fusions.get(node, []) + refused
        if kernel is None:
            raise self.selector.no_kernel(call, node.name, refused)
        return Step(node, node.op, call, kernel, self._device(kernel), refused, node.inputs,
                    node.outputs, (node,))

    def _fuse(self) -> tuple[dict[Node, Step], set[Node]]:
        """Steps of fused kernels by their last node, and every node that they cover."""
        fused: dict[Node, Step] = {}
        claimed: set[Node] = set()
        for op in self._fused_ops():
            for match in find_matches(op, self.graph):
                # an override on a covered node means that node, not a fusion of it
                if not any(n in claimed or self.selector.override(n.op.name, n.name)
                           for n in match.nodes):
                    step = self._claim(op, match)
                    if step is not None:
                        claimed.update(match.nodes)
                        fused[step.node] = step
        return fused, claimed

    def _fused_ops(self) -> list[FusedOp]:
        """Fused ops that the first backend offers, larger patterns first, then by name.

        Only the first: a fusion that a later backend offers must not take nodes from it.
        """
        first, overridden = self.selector.backends[0], {o.op for o in self.selector.overrides}
        ops = [op for op in OPS.values() if isinstance(op, FusedOp)
               and (self.selector.registry.kernels(first, op.name) or op.name in overridden)]
        return sorted(ops, key=lambda op: (-len(op.pattern().nodes), op.name))

    def _claim(self, op: FusedOp, match: Match) -> Step | None:
        call = make_call(op, match.inputs, match.attrs)
        covers = tuple(sorted(match.nodes, key=self._order.__getitem__))
        first = replace(self.selector, backends=self.selector.backends[:1])
        kernel, refused = first.choose(call, covers[-1].name,
                                       partial(self._misplaced, inputs=match.inputs))
        if kernel is None:
            if self.selector.override(op.name, covers[-1].name) is not None:
                raise self.selector.no_kernel(call, covers[-1].name, refused)
            self._refused_fusions.setdefault(covers[-1], []).extend(refused)
            return None
        return Step(covers[-1], op, call, kernel, self._device(kernel), refused, match.inputs,
                    match.outputs, covers)

    def _device(self, kernel: Kernel) -> str:
        return self.selector.registry.backend(kernel.backend).allocator.device

    def _misplaced(self, kernel: Kernel, inputs: Mapping[str, Value | None]) -> str | None:
        op, device = OPS[kernel.op], self._device(kernel)
        for name, value in inputs.items():
            if value is None:
                continue
            home = self.home.get(value.root, device)
            if (value.kind == "state" or name in op.sig.mutated) and home != device:
                return f"`{name}` is kept on {home} between steps, this kernel runs on {device}"
            if kernel.prepare is not None and name in op.weight_params and (
                    value.kind != "weight" or value.is_view):
                return f"`{name}` is computed in the graph, and prepare takes stored weights"
        return None


def make_call(op: Op, inputs: Mapping[str, Value | None], attrs: Mapping[str, Any]) -> Call:
    """What a kernel's `supports` sees. Raises OpError while a dimension is still a name."""
    specs = {k: v.spec if v is not None else None for k, v in inputs.items()}
    env = op.bind(specs, attrs)
    dims = {k: d for k, d in env.dims.items() if isinstance(d, int)}
    if len(dims) < len(env.dims):
        raise OpError(f"{op.name}: dimensions {sorted(set(env.dims) - set(dims))} are still names; "
                      "bind the graph to numbers first")
    return Call(op, specs, dict(attrs), dims, env.dtypes)
