"""Lower ops to bindings, each one kernel over one node or several."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from core.errors import OpError, OptionError
from core.installed.registry import REFERENCE
from core.ir.fusion import FusedOp
from core.ir.graph import Graph, Node, Value
from core.ir.match import Match, Search
from core.ir.op import OPS, Op
from core.ir.tolerance import Tolerance
from core.plan.policy import KernelPolicy, Override, Refusals
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
    def weight_names(self) -> dict[str, str]:
        """Return the names of the weights that are there, by parameter."""
        return {k: v.name for k in sorted(self.op.weight_params)
                if (v := self.inputs[k]) is not None}

    @property
    def tolerance(self) -> Tolerance:
        """Return what the results are judged by: the kernel's own where it declares one."""
        return self.kernel.tolerance or self.op.tolerance


def lower(graph: Graph, policy: KernelPolicy) -> tuple[list[Binding], dict[Value, str]]:
    """Choose a kernel for every node. Returns the bindings in execution order, and the device on
    which each value is made. Raises NoKernelError for a node that nothing takes."""
    lowering = _Lowering(graph, policy)
    return lowering.bindings(), lowering.home


@dataclass(frozen=True)
class _Offer:
    """Holds a place for a fused op, and a backend for it. Overlaps are settled by `rank`: overrides
    come first, the last of them before others; then the order of backends, the op's declared
    priority, the nodes that it covers, and its name."""

    op: FusedOp
    match: Match
    covers: tuple[Node, ...]
    backend: str
    override: Override | None
    rank: tuple[int, int, int, str]


class _Lowering:
    def __init__(self, graph: Graph, policy: KernelPolicy) -> None:
        self.graph, self.policy = graph, policy
        first = policy.primary.allocator.device
        self.home = {v: first for kind in ("input", "state") for v in graph.roots(kind)}
        self._passed: dict[Node, Refusals] = {}  # fused kernels, by the last node of each
        self._asked: dict[tuple[object, ...], tuple[Call, Kernel | None, Refusals]] = {}

    def bindings(self) -> list[Binding]:
        fused = self._fuse() if self.policy.fusion else {}
        found = []
        for node in self.graph.nodes:
            binding = fused.get(node) or self._choose(node)
            if node is not binding.node:
                continue  # a fused kernel computes it later
            binding.refused[:0] = [r for n in binding.covers for r in self._passed.get(n, ())]
            for value in binding.outputs.values():
                self.home.setdefault(value.root, binding.device)
            found.append(binding)
        return found

    def _choose(self, node: Node) -> Binding:
        call, kernel, refused = self._ask(node.op, node.inputs, node.attrs, node.name)
        if kernel is None:
            raise self.policy.no_kernel(call, node.name, self._passed.get(node, []) + refused)
        return Binding(node, node.op, call, kernel, self._device(kernel), refused, node.inputs,
                       node.outputs, (node,))

    def _ask(self, op: Op, inputs: Mapping[str, Value | None], attrs: Mapping[str, Any], node: str,
             backends: tuple[str, ...] | None = None) -> tuple[Call, Kernel | None, Refusals]:
        """Return a node's call and the kernel for it, if any of these backends has one. Asks once
        for all nodes that are alike: layers repeat."""
        key = (op, backends, node if self.policy.overrides else "", *attrs.values(), *(
            v and (id(v.spec), v.kind, v.is_view, self.home.get(v.root)) for v in inputs.values()))
        if key not in self._asked:
            policy = self.policy if backends is None else replace(self.policy, backends=backends)
            call = make_call(op, inputs, attrs, node)
            self._asked[key] = call, *policy.choose(call, node,
                                                    partial(self._misplaced, inputs=inputs))
        call, kernel, refused = self._asked[key]
        return call.at(node), kernel, list(refused)

    def _fuse(self) -> dict[Node, Binding]:
        """Return, for each node that a fused kernel covers, its binding.

        Raises OptionError for an override of a fused op that others leave no place.
        """
        claimed: dict[Node, Binding] = {}
        lost: dict[Override, str] = {}
        for offer in sorted(self._offers(), key=lambda offer: offer.rank):
            why = self._outranked(offer, claimed)
            binding = None if why else self._claim(offer)
            if binding is not None:
                claimed.update(dict.fromkeys(offer.covers, binding))
            elif why and offer.override is not None:
                lost.setdefault(offer.override, why)
            elif why:
                self._pass(offer, why)
        for override, why in lost.items():
            if not any(override.matches(b.op.name, n.name) for n, b in claimed.items()
                       if n is b.node):
                raise OptionError(f"kernel override {override.text!r} cannot win: {why}; the last "
                                  "of several overrides does")
        return claimed

    def _offers(self) -> Iterator[_Offer]:
        backends, search = self.policy.backends, Search(self.graph)
        for op in [op for op in OPS.values() if isinstance(op, FusedOp)]:
            able = [b for b in backends if b != REFERENCE  # which is for single nodes
                    and self.policy.registry.kernels(b, op.name)]
            if not able and all(o.op != op.name for o in self.policy.overrides):
                continue
            for match in search.matches(op):
                covers = tuple(match.nodes)
                override = self.policy.override(op.name, covers[-1].name)
                for backend in able if override is None else (override.backend,):
                    place = (-1 - self._given(override) if override is not None
                             else backends.index(backend))
                    yield _Offer(op, match, covers, backend, override,
                                 (place, -op.priority, -len(covers), op.name))

    def _given(self, override: Override) -> int:
        """Return the last place at which an override was given: later ones come first."""
        return len(self.policy.overrides) - 1 - self.policy.overrides[::-1].index(override)

    def _outranked(self, offer: _Offer, claimed: Mapping[Node, Binding]) -> str:
        """Return why an offer has no place beside what was chosen before it, "" if it has."""
        before = self.policy.backends[:max(0, offer.rank[0])]
        for node in offer.covers:
            if node in claimed:
                return f"covered by {claimed[node].kernel.id}"
            # an override on a covered node means that node, unless one of the fusion came later
            override = self.policy.override(node.op.name, node.name)
            if override is not None and (offer.override is None or self._given(offer.override)
                                         < self._given(override)):
                return f"not asked: {override.text} came first"
        for node in offer.covers if before else ():
            _, kernel, _ = self._ask(node.op, node.inputs, node.attrs, node.name, before)
            if kernel is not None:
                return f"not asked: {kernel.id} came first"
        return ""

    def _pass(self, offer: _Offer, why: str) -> None:
        """Note for the ledger that the best kernel of an offer had no place."""
        best = self.policy.registry.kernels(offer.backend, offer.op.name)[0]
        self._passed.setdefault(offer.covers[-1], []).append((best.id, why))

    def _claim(self, offer: _Offer) -> Binding | None:
        op, match, last = offer.op, offer.match, offer.covers[-1]
        call, kernel, refused = self._ask(op, match.inputs, match.attrs, last.name,
                                          (offer.backend,))
        if kernel is None and offer.override is not None:
            raise self.policy.no_kernel(call, last.name, refused)
        if kernel is None:
            self._passed.setdefault(last, []).extend(refused)
            return None
        return Binding(last, op, call, kernel, self._device(kernel), refused, match.inputs,
                       match.outputs, offer.covers)

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


def make_call(op: Op, inputs: Mapping[str, Value | None], attrs: Mapping[str, Any],
              node: str = "") -> Call:
    """Make what a kernel's `supports` sees. Raises OpError while a dimension is still a name."""
    specs = {k: v.spec if v is not None else None for k, v in inputs.items()}
    try:
        env = op.bind(specs, attrs)
    except OpError as error:
        raise type(error)(f"node {node}: {error}" if node else str(error)) from None
    dims = {k: d for k, d in env.dims.items() if isinstance(d, int)}
    if len(dims) < len(env.dims):
        raise OpError(f"{op.name}: dimensions {sorted(set(env.dims) - set(dims))} are still names; "
                      "bind the graph to numbers first")
    return Call(op, specs, dict(attrs), dims, env.dtypes, node)
