"""Trace: what every node made in a run, so that two runs can be compared value by value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from core.plan.lower import Step
from core.plan.plan import Plan
from core.tensor.tensor import Array
from core.verify.compare import Comparison, compare
from core.verify.expected import expectations
from core.verify.recorder import watched_inputs


@dataclass(frozen=True)
class Made:
    """One value, and who made it. In-place updates keep what was written only."""

    node: str
    op: str
    kernel: str
    result: str
    array: Array


@dataclass
class Run:
    """One run of a plan: values by name in the order in which they were made, and its outputs."""

    phase: str
    values: dict[str, Made] = field(default_factory=dict)
    outputs: dict[str, Array] = field(default_factory=dict)


class Trace:
    """An observer that copies every result; `values=False` keeps the plans' outputs only."""

    def __init__(self, *, values: bool = True) -> None:
        self.runs: list[Run] = []
        self._values = values

    def run(self, plan: Plan) -> None:
        run = Run(plan.steps[0].call.phase)
        for step, launch in plan.walk():
            launch()
            if self._values:
                for key, array in _written(step).items():
                    run.values[step.outputs[key].name] = Made(
                        step.node.name, step.op.name, step.kernel.id, key, np.array(array))
        run.outputs = {k: np.array(plan.output(k).numpy()) for k in plan.graph.outputs}
        self.runs.append(run)


@dataclass(frozen=True)
class Divergence:
    """The first value in which two runs differ: `run` counts plan runs, `index` is the worst
    element, `values` what either side has there."""

    run: int
    phase: str
    name: str
    a: Made
    b: Made
    index: tuple[int, ...]
    values: tuple[float, float]
    elements: int

    @property
    def layer(self) -> int | None:
        found = re.search(r"\blayers\.(\d+)\.", self.a.node)
        return int(found[1]) if found else None


def first_divergence(a: Trace, b: Trace) -> Divergence | None:
    """The first value, in the order of the first trace, whose bits differ; None if all are equal.

    Values that only one side has, inside of fused kernels, are passed over.
    """
    for i, (mine, theirs) in enumerate(zip(a.runs, b.runs, strict=False)):
        for name, x in mine.values.items():
            y = theirs.values.get(name)
            if y is not None and x.array.tobytes() != y.array.tobytes():
                return _divergence(i, mine.phase, name, x, y)
    return None


def _divergence(run: int, phase: str, name: str, x: Made, y: Made) -> Divergence:
    if x.array.shape != y.array.shape:
        return Divergence(run, phase, name, x, y, (), (float("nan"), float("nan")), x.array.size)
    p, q = x.array.astype(np.float64), y.array.astype(np.float64)
    with np.errstate(invalid="ignore"):
        distance = np.where(p == q, 0.0, np.abs(p - q))
    distance[np.isnan(distance)] = np.inf
    index = tuple(int(i) for i in np.unravel_index(int(distance.argmax()), distance.shape))
    return Divergence(run, phase, name, x, y, index, (float(p[index]), float(q[index])),
                      int(np.count_nonzero(distance)))


class Catch:
    """An observer that takes one step's call out of a run and holds it to the definition."""

    def __init__(self, run: int, node: str) -> None:
        self.node, self._left = node, run
        self.reference: dict[str, Array] = {}
        self.verdict: Comparison | None = None

    def run(self, plan: Plan) -> None:
        for step, launch in plan.walk():
            caught = self._left == 0 and step.node.name == self.node
            inputs = watched_inputs(plan, step) if caught else {}
            where = _places(step) if caught else {}
            launch()
            if caught:
                expected = expectations(step.op, inputs, step.call.attrs)
                found = [compare(t.numpy(), expected[k], step.tolerance)
                         for k, t in step.results.items() if k in expected]
                self.verdict = max(found, key=lambda v: v.used)
                self.reference = {k: e.exact[where[k]] if k in where else e.exact
                                  for k, e in expected.items()}
        self._left -= 1


def _places(step: Step) -> Mapping[str, Any]:
    """`Op.writes` for a step as its inputs are now."""
    if not step.op.sig.mutated:
        return {}
    return step.op.writes({k: t.numpy() for k, t in step.arguments.items()})


def _written(step: Step) -> dict[str, Array]:
    where = _places(step)
    return {k: t.numpy()[where[k]] if k in where else t.numpy() for k, t in step.results.items()}
