"""An observer that has every node computed by others too while a real model runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from core.errors import CheckError, NoKernelError
from core.plan.lower import Step
from core.plan.opinion import REFERENCE, Opinion
from core.plan.plan import Plan
from core.plugins.registry import Registry
from core.tensor.tensor import Array
from core.verify.check_row import CheckRow
from core.verify.compare import Budget, Comparison, agreement, budget_of, least_budget
from core.verify.recorder import Recorder, watched_inputs
from core.verify.shadow import Shadow, States
from core.verify.verdict import Judgement

__all__ = ["REFERENCE", "CrossCheck"]

#: Shadows with activations below this are kept from run to run; larger ones are made again.
_KEPT_BYTES = 1 << 20


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
        settled = (Judgement(self.registry, step, watch.shadows, inputs, mine)
                   if doubtful else None)
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

    def _remember(self, step: Step, settled: Judgement) -> None:
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
                mine: Mapping[str, Array], settled: Judgement) -> None:
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


def _places(plan: Plan, step: Step) -> Mapping[str, Any]:
    """`Op.writes` for a step as its inputs are now."""
    if not step.op.sig.mutated:
        return {}
    return step.op.writes({k: t.numpy() for k, t in step.arguments.items()})
