"""An observer that has every node computed by others too while a real model runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from core.backend import Kernel
from core.chooser import Step
from core.compare import Budget, Comparison, Expected, agreement, budget_of, compare, least_budget
from core.dispatch import expectations
from core.errors import CheckError, NoKernelError
from core.plan import Plan
from core.registry import Registry
from core.tensor import Array
from core.verify.opinion import REFERENCE, Opinion
from core.verify.recorder import Recorder, watched_inputs
from core.verify.shadow import Shadow, States
from core.verify.vote import Voter, sources_of, take_vote

__all__ = ["REFERENCE", "CheckRow", "CrossCheck"]

#: Shadows with activations below this are kept from run to run; larger ones are made again.
_KEPT_BYTES = 1 << 20


@dataclass
class CheckRow:
    """The worst outcome of one (op, kernel) against one opinion. `faults` counts the calls in which
    an (op, kernel) was wrong by the definition; `vote` is what the opinions said the first time."""

    op: str
    kernel: str
    against: str
    calls: int = 0
    wrong: int = 0
    worst: Comparison | None = None
    worst_node: str = ""
    skipped: str = ""
    itself: bool = False
    faults: dict[tuple[str, str], int] = field(default_factory=dict)
    first: str = ""
    vote: str = ""

    def add(self, verdicts: Sequence[Comparison], node: str, kernel: str) -> None:
        """Keep the worst, with the node and who computed it."""
        for verdict in verdicts:
            if self.worst is None or verdict.used > self.worst.used:
                self.worst, self.worst_node = verdict, f"{node} ({kernel})"

    def to_json(self) -> dict[str, Any]:
        """The row as plain data; `worst` is None where nothing was compared."""
        w = self.worst
        return {"op": self.op, "kernel": self.kernel, "against": self.against,
                "calls": self.calls, "wrong": self.wrong,
                "faults": [{"op": op, "kernel": kernel, "calls": count}
                           for (op, kernel), count in self.faults.items()],
                "first_wrong": self.first, "skipped": self.skipped, "vote": self.vote,
                "same_kernel": self.itself,
                "worst": None if w is None else {
                    "node": self.worst_node, "nmse": w.nmse, "max_abs": w.max_abs,
                    "max_rel": w.max_rel, "index": list(w.worst), "budget_used": w.used}}


@dataclass
class _Watch:
    """One step of a plan and what computes it beside its own kernel, by opinion."""

    step: Step
    shadows: dict[str, Shadow]
    refusals: dict[str, str]


class CrossCheck:
    """Computes every node by other opinions too, and compares.

    All see the same inputs, so an error does not travel from node to node. Kernels that agree
    within the least budget that the op can have are right together; a doubt is settled by the
    float64 definition, against which either is judged by the op's own budget. Where both were right
    the node's later calls have the smallest budget that it was given so. `reference` among the
    opinions asks for the definition at every call. A fused kernel is compared with its unfused
    composition where the opinion is the same backend, or has no such kernel. Of a state, such as a
    KV cache, a prefill compares everything and a decode step what it may write (everything for
    `reference`).

    stop      raise CheckError at the first kernel that is wrong, instead of counting on
    recorder  leaves replay capsules of what was wrong
    """

    def __init__(self, registry: Registry, against: Sequence[str | Opinion], *, stop: bool = False,
                 recorder: Recorder | None = None) -> None:
        self.registry, self.stop, self.recorder = registry, stop, recorder
        self.opinions = [o if isinstance(o, Opinion) else Opinion.parse(o, registry)
                         for o in against]
        self.against = [o.name for o in self.opinions]
        self._rows: dict[tuple[str, str, str], CheckRow] = {}
        self._watches: WeakKeyDictionary[Plan, list[_Watch | None]] = WeakKeyDictionary()
        self._budgets: dict[tuple[str, str, str], Budget] = {}  # by node, phase and result
        self._states: dict[str, States] = {o.name: {} for o in self.opinions}

    @property
    def rows(self) -> list[CheckRow]:
        return list(self._rows.values())

    @property
    def ok(self) -> bool:
        """True if something was compared and nothing was wrong."""
        return any(r.calls for r in self.rows) and not any(r.wrong for r in self.rows)

    def faults(self) -> dict[tuple[str, str], int]:
        """How often each (op, kernel) was wrong by the definition, the most often first."""
        found: dict[tuple[str, str], int] = {}
        for row in self.rows:
            for key, count in row.faults.items():
                found[key] = max(found.get(key, 0), count)
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def run(self, plan: Plan) -> None:
        watches = self._watches.setdefault(plan, [None] * len(plan.steps))
        for i, (step, launch) in enumerate(plan.walk()):
            watch = watches[i]
            if watch is None:
                watch = self._watch(plan, step)
                if all(s.plan.activation_bytes[0] < _KEPT_BYTES for s in watch.shadows.values()):
                    watches[i] = watch
            asked = self.recorder is not None and self.recorder.wants(step)
            whole = asked or REFERENCE in self.against or step.call.phase != "decode"
            before = self._before(plan, step, whole=whole)
            for shadow in watch.shadows.values():
                shadow.prepare()
            launch()
            self._judge(plan, watch, before)

    def _watch(self, plan: Plan, step: Step) -> _Watch:
        shadows, refusals = {}, {}
        for opinion in self.opinions:
            if opinion.selector is None:
                continue
            fusion = opinion.fusion and step.kernel.backend not in opinion.selector.backends
            try:
                shadows[opinion.name] = Shadow(
                    plan, step.covers, step.outputs.values(), opinion.selector, fusion=fusion,
                    states=self._states[opinion.name])
            except NoKernelError as error:
                refusals[opinion.name] = str(error).splitlines()[0]
        return _Watch(step, shadows, refusals)

    def _before(self, plan: Plan, step: Step, *, whole: bool) -> dict[str, Array]:
        """Of each input that the step updates, what was there: all of it, or what it may write."""
        updated = [k for k in step.op.sig.mutated if step.inputs[k] is not None]
        if not updated:
            return {}
        arrays = {k: step.arguments[k].numpy() for k in updated}
        where = {} if whole else _places(plan, step)
        return {k: np.array(a[where[k]] if k in where else a) for k, a in arrays.items()}

    def _judge(self, plan: Plan, watch: _Watch, before: Mapping[str, Array]) -> None:
        step, tolerance = watch.step, watch.step.tolerance
        place = step.node.name, step.call.phase
        mine = {k: t.numpy() for k, t in step.results.items()}
        # in a decode step, only what a call may write; whole states are compared at every prefill
        where = _places(plan, step) if step.call.phase == "decode" else {}
        agreed: dict[str, list[Comparison]] = {}
        for name, shadow in watch.shadows.items():
            shadow.run()
            found: list[Comparison] = []
            for key, value in step.outputs.items():
                a, b = mine[key], shadow.result(value)
                if key in where:
                    a, b = a[where[key]], b[where[key]]
                budget = self._budgets.get((*place, key)) or least_budget(tolerance,
                                                                             value.spec.dtype)
                close = agreement(a, b, budget)
                if close is None:
                    break
                found.append(close)
            else:
                agreed[name] = found
        doubtful = len(agreed) < len(watch.shadows) or REFERENCE in self.against
        asked = self.recorder is not None and self.recorder.wants(step)
        inputs = self._inputs(plan, step, before) if doubtful or asked else {}
        if asked and self.recorder is not None:
            self.recorder.asked(plan, step, inputs, mine)
        settled = _Settled(self, watch, inputs, mine) if doubtful else None
        for opinion in self.opinions:
            row = self._rows.setdefault((step.op.name, step.kernel.id, opinion.name), CheckRow(
                step.op.name, step.kernel.id, opinion.name))
            if opinion.name in watch.refusals:
                row.skipped = watch.refusals[opinion.name]
                continue
            row.calls += 1
            if opinion.name in agreed:
                row.add(agreed[opinion.name], step.node.name, step.kernel.id)
            elif settled is not None:
                row.wrong += not settled.count(row, opinion.name)
            if opinion.selector is not None:
                row.itself = watch.shadows[opinion.name].kernels == [step.kernel.id]
        if settled is not None and not settled.wrong:
            self._remember(step, settled)
        if settled is not None and settled.wrong:
            self._report(plan, step, inputs, mine, settled)
            for shadow in watch.shadows.values():
                shadow.follow()

    def _remember(self, step: Step, settled: _Settled) -> None:
        """Keep the smallest budget that the definition has given this node, for its next calls."""
        place = step.node.name, step.call.phase
        for key, expected in settled.expected.items():
            found, old = budget_of(expected, step.tolerance), self._budgets.get((*place, key))
            self._budgets[(*place, key)] = found if old is None or old.exact else Budget(
                min(found.peak, old.peak), min(found.nmse, old.nmse),
                min(found.arithmetic, old.arithmetic))

    def _inputs(self, plan: Plan, step: Step, before: Mapping[str, Array],
                ) -> dict[str, Array | None]:
        """The step's inputs as they were; what was updated in a few places is put back there."""
        inputs = watched_inputs(plan, step)
        where = _places(plan, step)
        for key, array in before.items():
            now = inputs[key]
            if key in where and now is not None and array.shape != now.shape:
                now[where[key]] = array
            else:
                inputs[key] = array
        return inputs

    def _report(self, plan: Plan, step: Step, inputs: Mapping[str, Array | None],
                mine: Mapping[str, Array], settled: _Settled) -> None:
        vote = settled.vote()
        for row in self.rows:
            if row.op == step.op.name and row.kernel == step.kernel.id and row.wrong:
                row.vote = row.vote or vote
        for wrong in (w for found in settled.wrong.values() for w in found):
            reason = f"node {step.node.name}: {wrong.kernel} is wrong: {wrong.verdict}; {vote}"
            path = self.recorder and self.recorder.trouble(plan, step, inputs, wrong.outputs,
                                                           wrong.kernel, reason)
            if self.stop:
                raise CheckError(f"{reason}" + (f"; the call is in {path}" if path else ""))


@dataclass(frozen=True)
class _Wrong:
    """A kernel that was wrong in a call, what the call gave, and the verdict."""

    op: str
    kernel: str
    outputs: Mapping[str, Array]
    verdict: Comparison


class _Settled:
    """The definition's word on one call: what it expects, and who is wrong by it."""

    def __init__(self, check: CrossCheck, watch: _Watch, inputs: Mapping[str, Array | None],
                 mine: Mapping[str, Array]) -> None:
        self.check, self.step, self.shadows = check, watch.step, watch.shadows
        self.expected = expectations(self.step.op, inputs, self.step.call.attrs)
        self.results = {self.step.kernel.id: mine}
        self.verdicts = {"": _verdicts(self.step, mine, self.expected)}  # ours has no name
        self.wrong: dict[str, list[_Wrong]] = {}
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
                self.wrong[name] = [_Wrong(op, kernel, found, worst) for op, kernel in who]

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
        registry = self.check.registry
        voters = [Voter(self.step.kernel.id, self.results[self.step.kernel.id],
                        sources_of([self.step.kernel], registry))]
        for name, shadow in self.shadows.items():
            kernels: list[Kernel] = [s.kernel for s in shadow.plan.steps]
            label = ", ".join(shadow.kernels)
            if label not in [v.name for v in voters]:  # the same kernel is no second opinion
                voters.append(Voter(label, self.results[name], sources_of(kernels, registry)))
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


def _places(plan: Plan, step: Step) -> Mapping[str, Any]:
    """`Op.writes` for a step as its inputs are now."""
    if not step.op.sig.mutated:
        return {}
    return step.op.writes({k: t.numpy() for k, t in step.arguments.items()})
