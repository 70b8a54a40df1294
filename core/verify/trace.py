"""Traces: every value of a run, so that two runs can be compared value by value."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np

from core.plan.plan import Plan
from core.tensor.tensor import Array
from core.verify.compare import Comparison
from core.verify.expected import expectations
from core.verify.guard import Twins
from core.verify.values import inputs_of, places_of, results_of
from core.verify.verdict import judge_call


@dataclass(frozen=True)
class Recorded:
    """Holds one value and the kernel that computed it; of an in-place update what was written."""

    node: str
    op: str
    kernel: str
    result: str
    array: Array


@dataclass
class Run:
    """Holds the values of one run of a plan by name, in the order of computing."""

    phase: str
    values: dict[str, Recorded] = field(default_factory=dict)


class Trace:
    """Observes a run, and copies every result. It runs between guard bytes, so that a stray write
    does not end the process before a check can name it."""

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self._twins = Twins()

    def run(self, plan: Plan) -> None:
        run = Run(plan.bindings[0].call.phase)
        for binding, launch in self._twins.walk(plan):
            launch()
            places = places_of(binding)
            for key, array in results_of(binding).items():
                written = np.array(array[places.get(key, ...)])
                run.values[binding.outputs[key].name] = Recorded(
                    binding.node.name, binding.op.name, binding.kernel.id, key, written)
        self.runs.append(run)


@dataclass(frozen=True)
class Divergence:
    """Shows the first value in which two runs differ: `run` counts plan runs, `index` is the
    worst element, `values` are the two sides' there, `elements` counts those that differ."""

    run: int
    phase: str
    name: str
    a: Recorded
    b: Recorded
    index: tuple[int, ...]
    values: tuple[float, float]
    elements: int

    @property
    def layer(self) -> int | None:
        found = re.search(r"\blayers\.(\d+)\.", self.a.node)
        return int(found[1]) if found else None


def first_divergence(a: Trace, b: Trace) -> Divergence | None:
    """Return the first value, in the order of the first trace, whose bits differ, or None.

    Values that only one side has, inside of fused kernels, are skipped.
    """
    for i, (mine, theirs) in enumerate(zip(a.runs, b.runs, strict=False)):
        for name, x in mine.values.items():
            y = theirs.values.get(name)
            if y is not None and x.array.tobytes() != y.array.tobytes():
                return _divergence(i, mine.phase, name, x, y)
    return None


def _divergence(run: int, phase: str, name: str, x: Recorded, y: Recorded) -> Divergence:
    if x.array.shape != y.array.shape:
        return Divergence(run, phase, name, x, y, (), (float("nan"), float("nan")), x.array.size)
    p, q = x.array.astype(np.float64), y.array.astype(np.float64)
    with np.errstate(invalid="ignore"):
        distance = np.where(p == q, 0.0, np.abs(p - q))
    distance[np.isnan(distance)] = np.inf
    index = tuple(int(i) for i in np.unravel_index(int(distance.argmax()), distance.shape))
    return Divergence(run, phase, name, x, y, index, (float(p[index]), float(q[index])),
                      int(np.count_nonzero(distance)))


class Probe:
    """Observes a run, and judges one step's call in it by the reference.

    run, node   the call: how many plan runs come before it, and the step's node
    verdict     the worst result of the call, None until it ran
    reference   the expected results in float64, of an in-place update what may be written
    """

    def __init__(self, run: int, node: str) -> None:
        self.node, self._left, self._twins = node, run, Twins()
        self.reference: dict[str, Array] = {}
        self.verdict: Comparison | None = None

    def run(self, plan: Plan) -> None:
        for binding, launch in self._twins.walk(plan):
            if self._left or binding.node.name != self.node:
                launch()
                continue
            inputs, places = inputs_of(plan, binding), places_of(binding)
            launch()
            expected = expectations(binding.op, inputs, binding.call.attrs)
            self.verdict = judge_call(expected, results_of(binding), binding.tolerance).worst
            self.reference = {k: e.exact[places.get(k, ...)] for k, e in expected.items()}
        self._left -= 1
