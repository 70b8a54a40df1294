"""Lower ops to bindings, each one kernel over one node or several."""

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
from core.plan.policy import KernelPolicy, Refusals
from core.plugins.backend import Launch
from core.plugins.kernel import Call, Kernel
from core.tensor.tensor import Tensor


@dataclass
class Binding:
    """Holds one kernel and the values that it reads and makes; the plan adds their tensors.

    covers  the graph nodes that it computes; it runs where the last of them stood
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
        """Return what the results are judged by: the kernel's own where it declares one."""
        return self.kernel.tolerance or self.op.tolerance


def lower(graph: Graph, policy: KernelPolicy) -> tuple[list[Binding], dict[Value, str]]:
    """Choose a kernel for every node. Returns the bindings in execution order, and the device on
    which each value is made. Raises NoKernelError for a node that nothing takes."""
    lowering = _Lowering(graph, policy)
    return lowering.bindings(), lowering.home


class _Lowering:
    def __init__(self, graph: Graph, policy: KernelPolicy) -> None:
        self.graph, self.policy = graph, policy
        first = policy.primary.allocator.device
        self.home = {v: first for kind in ("input", "state") for v in graph.roots(kind)}
        self._order = {node: i for i, node in enumerate(graph.nodes)}
        self._refused_fusions: dict[Node, Refusals] = {}

    def bindings(self) -> list[Binding]:
        fused, claimed = self._fuse() if self.policy.fusion else ({}, set())
        found = []
        for node in self.graph.nodes:
            if node in claimed and node not in fused:
                continue
            binding = fused.get(node) or self._choose(node)
            for value in binding.outputs.values():
                self.home.setdefault(value.root, binding.device)
            found.append(binding)
        return found

    def _choose(self, node: Node) -> Binding:
        call = make_call(node.op, node.inputs, node.attrs)
        kernel, refused = self.policy.choose(call, node.name,
                                               partial(self._misplaced, inputs=node.inputs))
        refused = self._refused_fusions.get(node, []) + refused
        if kernel is None:
            raise self.policy.no_kernel(call, node.name, refused)
        return Binding(node, node.op, call, kernel, self._device(kernel), refused, node.inputs,
                    node.outputs, (node,))

    def _fuse(self) -> tuple[dict[Node, Binding], set[Node]]:
        """Return bindings of fused kernels by their last node, and every node that they cover."""
        fused: dict[Node, Binding] = {}
        claimed: set[Node] = set()
        for op in self._fused_ops():
            for match in find_matches(op, self.graph):
                # an override on a covered node means that node, not a fusion of it
                if not any(n in claimed or self.policy.override(n.op.name, n.name)
                           for n in match.nodes):
                    binding = self._claim(op, match)
                    if binding is not None:
                        claimed.update(match.nodes)
                        fused[binding.node] = binding
        return fused, claimed

    def _fused_ops(self) -> list[FusedOp]:
        """List the fused ops that the first backend offers, larger patterns first, then by name.

        Only the first: a fusion that a later backend offers must not take nodes from it.
        """
        first, overridden = self.policy.backends[0], {o.op for o in self.policy.overrides}
        ops = [op for op in OPS.values() if isinstance(op, FusedOp)
               and (self.policy.registry.kernels(first, op.name) or op.name in overridden)]
        return sorted(ops, key=lambda op: (-len(op.pattern().nodes), op.name))

    def _claim(self, op: FusedOp, match: Match) -> Binding | None:
        call = make_call(op, match.inputs, match.attrs)
        covers = tuple(sorted(match.nodes, key=self._order.__getitem__))
        first = replace(self.policy, backends=self.policy.backends[:1])
        kernel, refused = first.choose(call, covers[-1].name,
                                       partial(self._misplaced, inputs=match.inputs))
        if kernel is None:
            if self.policy.override(op.name, covers[-1].name) is not None:
                raise self.policy.no_kernel(call, covers[-1].name, refused)
            self._refused_fusions.setdefault(covers[-1], []).extend(refused)
            return None
        return Binding(covers[-1], op, call, kernel, self._device(kernel), refused, match.inputs,
                    match.outputs, covers)

    def _device(self, kernel: Kernel) -> str:
        return self.policy.registry.backend(kernel.backend).allocator.device

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
    """Make what a kernel's `supports` sees. Raises OpError while a dimension is still a name."""
    specs = {k: v.spec if v is not None else None for k, v in inputs.items()}
    env = op.bind(specs, attrs)
    dims = {k: d for k, d in env.dims.items() if isinstance(d, int)}
    if len(dims) < len(env.dims):
        raise OpError(f"{op.name}: dimensions {sorted(set(env.dims) - set(dims))} are still names; "
                      "bind the graph to numbers first")
    return Call(op, specs, dict(attrs), dims, env.dtypes)
