"""Bisects a difference: finds the fewest nodes whose kernels carry it, by swapping kernels."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar
from weakref import WeakKeyDictionary

import numpy as np

from core.errors import NoKernelError
from core.ir.graph import Node
from core.plan.lower import Binding, lower
from core.plan.plan import Plan
from core.plan.policy import KernelPolicy
from core.runtime.step import Observer
from core.tensor.tensor import Array
from core.verify.guard import Twins
from core.verify.shadow import Shadows
from core.verify.subgraph import visible_values

T = TypeVar("T")


@dataclass(frozen=True)
class Outcome:
    """Holds a run's tokens, and the logits that each was sampled from."""

    logits: list[Array]
    tokens: list[int]
    greedy: bool = True

    def distance(self, other: Outcome) -> float:
        """Return the worst difference of logits, relative to the largest one, up to the first token
        that differs.

        That token counts by how far the other's choice is below the best in our logits, if greedy;
        a sampled one counts as 1, and so does a run of another length.
        """
        worst = 0.0
        for i, (a, b) in enumerate(zip(self.logits, other.logits, strict=False)):
            worst = max(worst, _relative(a, b))
            if i < min(len(self.tokens), len(other.tokens)) and self.tokens[i] != other.tokens[i]:
                best, chosen = (float(a.reshape(-1)[t]) for t in (self.tokens[i], other.tokens[i]))
                gap = abs(best - chosen) / max(float(np.abs(a).max()), 1e-30)
                return max(worst, gap if self.greedy else 1.0)
        return max(worst, 1.0) if len(self.logits) != len(other.logits) else worst


@dataclass(frozen=True, eq=False)
class Unit:
    """Holds nodes that are swapped together, since a fused kernel of either side spans them."""

    nodes: tuple[Node, ...]
    mine: tuple[Binding, ...]
    theirs: tuple[Binding, ...]

    @property
    def swaps(self) -> list[tuple[str, str, str]]:
        """(op, our kernel, the other's) wherever the two sides have different kernels."""
        mine, theirs = ({s.op.name: s.kernel.id for s in bindings}
                        for bindings in (self.mine, self.theirs))
        return [(op, mine.get(op, "-"), theirs.get(op, "-"))
                for op in dict.fromkeys([*mine, *theirs]) if mine.get(op) != theirs.get(op)]


Place = tuple[Unit, ...]  # the same nodes in prefill and in decode


class Swap:
    """Observes a run: computes units that hold a node of `chosen` by the kernels of a policy, the
    others by the plan's own, between guard bytes. Results of the policy are put into the tensors
    of the plan's twin."""

    def __init__(self, policy: KernelPolicy) -> None:
        self.chosen: frozenset[str] = frozenset()
        #: every unit seen, by its last node's name: one for prefill and one for decode
        self.units: dict[str, dict[str, Unit]] = {}
        self._plans: WeakKeyDictionary[Plan, list[Unit]] = WeakKeyDictionary()
        self._shadows, self._twins = Shadows(policy), Twins()

    def run(self, original: Plan) -> None:
        guarded = self._twins.of(original)
        plan = guarded.plan
        if plan not in self._plans:
            self._plans[plan] = units(plan, self._shadows.policy)
            for unit in self._plans[plan]:
                phases = self.units.setdefault(unit.nodes[-1].name, {})
                phases[unit.mine[-1].call.phase] = unit
        taken = {u.mine[-1].node: u for u in self._plans[plan]
                 if any(n.name in self.chosen for n in u.nodes)}
        skipped = {s.node for u in taken.values() for s in u.mine}
        for binding, launch in guarded.walk():
            if binding.node in taken:
                self._compute(plan, taken[binding.node])
            elif binding.node not in skipped:
                launch()
        self._twins.hand_over(original)

    def _compute(self, plan: Plan, unit: Unit) -> None:
        # what the unit shows to others, or all that its steps compute
        outputs = visible_values(plan.graph, unit.nodes) or [
            v for s in unit.mine for v in s.outputs.values()]
        shadow = self._shadows.of(plan, unit.nodes, outputs)
        if isinstance(shadow, str):
            raise NoKernelError(shadow)
        shadow.follow()
        shadow.prepare()
        shadow.run()
        for value in outputs:
            plan.tensor(value).write(shadow.result(value).copy())


def units(plan: Plan, policy: KernelPolicy) -> list[Unit]:
    """Return the plan's bindings in order, joined where one of the policy spans several of them."""
    theirs, _ = lower(plan.graph, policy)
    order = {node: i for i, node in enumerate(plan.graph.nodes)}
    group = {node: node for node in plan.graph.nodes}

    def join(nodes: Collection[Node]) -> None:
        old = {group[n] for n in nodes}
        head = min(old, key=order.__getitem__)
        group.update({n: head for n, g in group.items() if g in old})

    for binding in [*plan.bindings, *theirs]:
        if len(binding.covers) > 1:
            join(binding.covers)
    members: dict[Node, list[Node]] = {}
    for node in plan.graph.nodes:
        members.setdefault(group[node], []).append(node)
    return [Unit(tuple(nodes), tuple(s for s in plan.bindings if s.node in nodes),
                 tuple(s for s in theirs if s.node in nodes)) for nodes in members.values()]


@dataclass(frozen=True)
class Bisection:
    """Holds the kernels and the nodes that carry a difference.

    total     the whole difference, as `Outcome.distance`
    carried   the part of it that `nodes` make
    kernels   (op, our kernel, the other's) in the smallest group of kernels that carries it
    nodes     the fewest nodes that carry it
    runs      how many runs were compared
    """

    total: float
    carried: float
    kernels: list[tuple[str, str, str]]
    nodes: list[str]
    runs: int

    def guilty(self, faults: Mapping[tuple[str, str], int]) -> list[tuple[str, str]]:
        """Return those of `kernels` that a cross-check found wrong by the reference, as (op,
        kernel). Where a fused kernel is swapped, its parts are among them."""
        pairs = {(op, k) for op, mine, theirs in self.kernels for k in (mine, theirs)}
        return [fault for fault in faults if fault in pairs]


def bisect(play: Callable[[Observer], Outcome], policy: KernelPolicy) -> Bisection:
    """Run `play`, the same generation each time, with ever fewer nodes swapped to `policy`.

    A set of nodes carries the difference if it makes at least half of it. First groups of nodes
    with the same ops are tried, then single nodes of the groups that remain: delta debugging
    (Zeller and Hildebrandt 2002). Raises NoKernelError where the policy has none for a node.
    """
    swap, runs = Swap(policy), 0
    base = play(swap)

    def difference(places: Sequence[Place]) -> float:
        nonlocal runs
        runs += 1
        swap.chosen = frozenset(n.name for p in places for u in p for n in u.nodes)
        return base.distance(play(swap))

    def carries(places: Sequence[Place]) -> bool:
        return difference(places) >= total / 2

    every = [tuple(phases.values()) for phases in swap.units.values()]
    total = difference(every)
    if total == 0:
        return Bisection(0, 0, [], [], runs)
    ops: dict[tuple[str, ...], list[Place]] = {}
    for place in every:
        # what both sides compute by the same kernel cannot carry anything
        if any(u.swaps for u in place):
            ops.setdefault(tuple(sorted({n.op.name for n in place[-1].nodes})), []).append(place)
    groups = smallest(list(ops.values()), lambda gs: carries([p for g in gs for p in g]))
    places = smallest([p for g in groups for p in g], carries)
    kernels = dict.fromkeys(k for g in groups for p in g for u in p for k in u.swaps)
    nodes = dict.fromkeys(n.name for p in places for u in p for n in u.nodes)
    return Bisection(total, difference(places), list(kernels), list(nodes), runs)


def smallest(items: list[T], works: Callable[[list[T]], bool]) -> list[T]:
    """Return a part of `items` that works, but not without any one of its members (ddmin).

    Returns all of them if `works` is False for every part.
    """
    parts = 2
    while len(items) > 1:
        size = -(-len(items) // parts)
        pieces = [items[i:i + size] for i in range(0, len(items), size)]
        rests = [[x for other in pieces if other is not piece for x in other] for piece in pieces]
        found = next((p for p in [*pieces, *(rests if len(pieces) > 2 else [])] if works(p)), None)
        if found is not None:
            parts = 2 if len(found) <= size else max(2, len(pieces) - 1)
            items = found
        elif size == 1:
            break
        else:
            parts = min(len(items), parts * 2)
    return items


def _relative(a: Array, b: Array) -> float:
    if a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return 0.0 if np.array_equal(a, b, equal_nan=True) else float("inf")
    peak = float(np.abs(a).max(initial=0.0))
    return float(np.abs(a.astype(np.float64) - b).max(initial=0.0)) / (peak or 1.0)
