"""Blame: the smallest set of nodes whose kernels carry the difference between two opinions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from core.plan.opinion import Opinion
from core.runtime.step import Observer
from core.tensor.tensor import Array
from core.verify.exchange import Exchange, Unit

T = TypeVar("T")
Place = tuple[Unit, ...]  # the same nodes in prefill and in decode


@dataclass(frozen=True)
class Outcome:
    """What a run gives: after each drawn token the logits that it was drawn from, and the token."""

    logits: list[Array]
    tokens: list[int]
    greedy: bool = True

    def distance(self, other: Outcome) -> float:
        """The worst difference of logits, relative to the largest one, while the tokens are equal.

        Where they part, greedy tokens count by how far below the best the other's choice is in our
        logits; drawn ones as 1, and so does a run that ended at another length.
        """
        worst = 0.0
        for i, (a, b) in enumerate(zip(self.logits, other.logits, strict=False)):
            worst = max(worst, _relative(a, b))
            if i < min(len(self.tokens), len(other.tokens)) and self.tokens[i] != other.tokens[i]:
                best, chosen = (float(a.reshape(-1)[t]) for t in (self.tokens[i], other.tokens[i]))
                gap = abs(best - chosen) / max(float(np.abs(a).max()), 1e-30)
                return max(worst, gap if self.greedy else 1.0)
        return max(worst, 1.0) if len(self.logits) != len(other.logits) else worst


@dataclass(frozen=True)
class Blame:
    """`kernels`: (op, our kernel, the other's) of every node in the smallest group of kernels that
    carries the difference; `nodes`: the fewest nodes that do. `total` is the whole difference,
    `carried` what those nodes make of it; `runs` counts the trials."""

    total: float
    carried: float
    kernels: list[tuple[str, str, str]]
    nodes: list[str]
    runs: int

    def guilty(self, faults: Mapping[tuple[str, str], int]) -> list[tuple[str, str]]:
        """Of the blamed kernels those that a cross-check found wrong by the definition, as (op,
        kernel): where a fused kernel changes hands, its parts are blamed with it."""
        pairs = {(op, k) for op, mine, theirs in self.kernels for k in (mine, theirs)}
        return [fault for fault in faults if fault in pairs]


def find_blame(play: Callable[[Observer], Outcome], opinion: Opinion) -> Blame:
    """Run `play` (the same generation each time) with ever smaller sets of nodes handed over.

    A set carries the difference if it makes at least half of it. First kinds of kernels are tried,
    then the nodes of those that remain: delta debugging (Zeller and Hildebrandt 2002).
    """
    exchange, runs = Exchange(opinion), 0
    base = play(exchange)

    def difference(places: Sequence[Place]) -> float:
        nonlocal runs
        runs += 1
        exchange.chosen = frozenset(n.name for p in places for u in p for n in u.nodes)
        return base.distance(play(exchange))

    def carries(places: Sequence[Place]) -> bool:
        return difference(places) >= total / 2

    def every() -> list[Place]:
        return [tuple(phases.values()) for phases in exchange.units.values()]

    total = difference(every())
    if total == 0:
        return Blame(0, 0, [], [], runs)
    ops: dict[tuple[str, ...], list[Place]] = {}
    for place in every():
        # what both sides compute by the same kernel cannot carry anything
        if any(_kernels(u) for u in place):
            ops.setdefault(place[-1].ops, []).append(place)
    groups = smallest(list(ops.values()), lambda gs: carries([p for g in gs for p in g]))
    places = smallest([p for g in groups for p in g], carries)
    kernels = dict.fromkeys(k for g in groups for p in g for u in p for k in _kernels(u))
    nodes = dict.fromkeys(n.name for p in places for u in p for n in u.nodes)
    return Blame(total, difference(places), list(kernels), list(nodes), runs)


def smallest(items: list[T], works: Callable[[list[T]], bool]) -> list[T]:
    """A part of `items` that works, and no longer does without any one of its members (ddmin).
    Returns all of them if `works` says no to that."""
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


def _kernels(unit: Unit) -> list[tuple[str, str, str]]:
    mine, theirs = ({s.op.name: s.kernel.id for s in steps} for steps in (unit.mine, unit.theirs))
    return [(op, mine.get(op, "-"), theirs.get(op, "-")) for op in dict.fromkeys([*mine, *theirs])
            if mine.get(op) != theirs.get(op)]


def _relative(a: Array, b: Array) -> float:
    if a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return 0.0 if np.array_equal(a, b, equal_nan=True) else float("inf")
    peak = float(np.abs(a).max(initial=0.0))
    return float(np.abs(a.astype(np.float64) - b).max(initial=0.0)) / (peak or 1.0)
