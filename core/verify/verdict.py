"""A doubtful call before the float64 definition: who is wrong by it, and what the opinions say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from core.plan.lower import Step
from core.plan.opinion import REFERENCE
from core.plan.plan import Plan
from core.plugins.kernel import Kernel
from core.plugins.registry import Registry
from core.tensor.tensor import Array
from core.verify.check_row import CheckRow
from core.verify.compare import Comparison, Expected, budget_of, compare
from core.verify.expected import expectations
from core.verify.recorder import watched_inputs
from core.verify.shadow import Shadow
from core.verify.vote import Voter, sources_of, take_vote


@dataclass(frozen=True)
class Wrong:
    """A kernel that was wrong in a call, what the call gave, and the verdict."""

    op: str
    kernel: str
    outputs: Mapping[str, Array]
    verdict: Comparison


class Judgement:
    """The definition's word on one call: what it expects, and who is wrong by it."""

    def __init__(self, registry: Registry, step: Step, shadows: Mapping[str, Shadow],
                 inputs: Mapping[str, Array | None], mine: Mapping[str, Array]) -> None:
        self.registry, self.step, self.shadows = registry, step, shadows
        self.expected = expectations(self.step.op, inputs, self.step.call.attrs)
        self.results = {self.step.kernel.id: mine}
        self.verdicts = {"": _verdicts(self.step, mine, self.expected)}  # ours has no name
        self.wrong: dict[str, list[Wrong]] = {}
        for name, shadow in self.shadows.items():
            self.results[name] = shadow.results(self.step.outputs)
            self.verdicts[name] = _verdicts(self.step, self.results[name], self.expected)
        for name, verdicts in self.verdicts.items():
            bad = [v for v in verdicts if not v.ok]
            if bad:
                worst = max(bad, key=lambda v: v.used)
                who = ([(self.step.op.name, self.step.kernel.id)] if not name else
                       _inside(self.shadows[name].plan) or
                       [(self.step.op.name, ", ".join(self.shadows[name].kernels))])
                found = self.results[name or self.step.kernel.id]
                self.wrong[name] = [Wrong(op, kernel, found, worst) for op, kernel in who]

    def count(self, row: CheckRow, opinion: str) -> bool:
        """Put the verdicts on the row of an opinion; True if all are right."""
        node, right = self.step.node.name, True
        for name in ("", *([opinion] if opinion in self.shadows else [])):
            kernels = ", ".join(self.shadows[name].kernels) if name else self.step.kernel.id
            row.add(self.verdicts[name], node, kernels)
            for wrong in self.wrong.get(name, ()):
                key = wrong.op, wrong.kernel
                row.faults[key] = row.faults.get(key, 0) + 1
                row.first, right = row.first or node, False
        return right

    def vote(self) -> str:
        """What the opinions, the definition among them, say of each other."""
        voters = [Voter(self.step.kernel.id, self.results[self.step.kernel.id],
                        sources_of([self.step.kernel], self.registry))]
        for name, shadow in self.shadows.items():
            kernels: list[Kernel] = [s.kernel for s in shadow.plan.steps]
            label = ", ".join(shadow.kernels)
            if label not in [v.name for v in voters]:  # the same kernel is no second opinion
                voters.append(Voter(label, self.results[name], sources_of(kernels, self.registry)))
        exact = {k: _stored(e) for k, e in self.expected.items()}
        voters.append(Voter(REFERENCE, exact, frozenset([REFERENCE])))
        tolerance = self.step.tolerance
        return str(take_vote(voters, {k: budget_of(e, tolerance)
                                      for k, e in self.expected.items()}))


def _verdicts(step: Step, found: Mapping[str, Array], expected: Mapping[str, Expected],
              ) -> list[Comparison]:
    return [compare(a, expected[k], step.tolerance) for k, a in found.items() if k in expected]


def _inside(plan: Plan) -> list[tuple[str, str]]:
    """The wrong ones among the kernels of a composition, each judged from its own inputs."""
    wrong = []
    for step, launch in plan.walk():
        inputs = watched_inputs(plan, step)
        launch()
        found = {k: t.numpy() for k, t in step.results.items()}
        verdicts = _verdicts(step, found, expectations(step.op, inputs, step.call.attrs))
        if not all(v.ok for v in verdicts):
            wrong.append((step.op.name, step.kernel.id))
    return wrong


def _stored(expected: Expected) -> Array:
    with np.errstate(all="ignore"):
        return expected.exact.astype(expected.dtype.numpy)
