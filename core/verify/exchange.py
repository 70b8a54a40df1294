"""Exchange: a run in which some nodes are computed by another opinion's kernels."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from core.errors import OptionError
from core.ir.graph import Graph, Node, Value
from core.ir.subgraph import visible_values
from core.plan.lower import Chooser, Step
from core.plan.opinion import Opinion
from core.plan.plan import Plan
from core.verify.shadow import Shadow, States

_KEPT_BYTES = 1 << 20  # of activations: larger shadows are made again for each run


@dataclass(frozen=True, eq=False)
class Unit:
    """Nodes that change hands together, since a fused kernel of either side spans them."""

    nodes: tuple[Node, ...]
    mine: tuple[Step, ...]
    theirs: tuple[Step, ...]

    @property
    def ops(self) -> tuple[str, ...]:
        return tuple(sorted({n.op.name for n in self.nodes}))


class Exchange:
    """An observer: units that hold a node of `chosen` are computed by `opinion`, the others by the
    plan's own kernels. What the other computes is put into the plan's own tensors."""

    def __init__(self, opinion: Opinion) -> None:
        if opinion.selector is None:
            raise OptionError("the reference has no kernels to exchange; expected a backend")
        self.opinion, self.selector = opinion, opinion.selector
        self.chosen: frozenset[str] = frozenset()
        #: every unit seen, by its last node's name: one for prefill and one for decode
        self.units: dict[str, dict[str, Unit]] = {}
        self._plans: WeakKeyDictionary[Plan, list[Unit]] = WeakKeyDictionary()
        self._shadows: WeakKeyDictionary[Plan, dict[Unit, Shadow]] = WeakKeyDictionary()
        self._states: States = {}

    def run(self, plan: Plan) -> None:
        if plan not in self._plans:
            self._plans[plan] = units(plan, self.opinion)
            self._shadows[plan] = {}
            for unit in self._plans[plan]:
                phases = self.units.setdefault(unit.nodes[-1].name, {})
                phases[unit.mine[-1].call.phase] = unit
        taken = {u.mine[-1].node: u for u in self._plans[plan]
                 if any(n.name in self.chosen for n in u.nodes)}
        skipped = {s.node for u in taken.values() for s in u.mine}
        for step, launch in plan.walk():
            if step.node in taken:
                self._compute(plan, taken[step.node])
            elif step.node not in skipped:
                launch()

    def _compute(self, plan: Plan, unit: Unit) -> None:
        outputs = _outputs(plan.graph, unit)
        kept = self._shadows[plan]
        shadow = kept.get(unit) or Shadow(plan, unit.nodes, outputs, self.selector,
                                          fusion=self.opinion.fusion, states=self._states)
        if shadow.plan.activation_bytes[0] < _KEPT_BYTES:
            kept[unit] = shadow
        shadow.follow()
        shadow.prepare()
        shadow.run()
        for value in outputs:
            plan.tensor(value).write(shadow.result(value).copy())


def _outputs(graph: Graph, unit: Unit) -> list[Value]:
    """What the unit's nodes show to others, or all that its steps make."""
    return visible_values(graph, unit.nodes) or [v for s in unit.mine for v in s.outputs.values()]


def units(plan: Plan, opinion: Opinion) -> list[Unit]:
    """The plan's steps joined where a step of the opinion spans several of them, in order."""
    assert opinion.selector is not None  # Exchange has checked
    theirs = Chooser(plan.graph, opinion.selector).steps(fusion=opinion.fusion)
    order = {node: i for i, node in enumerate(plan.graph.nodes)}
    group = {node: node for node in plan.graph.nodes}

    def join(nodes: Collection[Node]) -> None:
        old = {group[n] for n in nodes}
        head = min(old, key=order.__getitem__)
        group.update({n: head for n, g in group.items() if g in old})

    for step in [*plan.steps, *theirs]:
        if len(step.covers) > 1:
            join(step.covers)
    members: dict[Node, list[Node]] = {}
    for node in plan.graph.nodes:
        members.setdefault(group[node], []).append(node)
    return [Unit(tuple(nodes), tuple(s for s in plan.steps if s.node in nodes),
                 tuple(s for s in theirs if s.node in nodes)) for nodes in members.values()]
