"""Checks every node of a running model by other kernels, from the same inputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import astuple

import numpy as np

from core.errors import CheckError
from core.installed.registry import Registry
from core.plan.lower import Binding
from core.plan.plan import Plan
from core.plugins.kernel import Kernel
from core.tensor.tensor import Array
from core.verify.capsules.recorder import Recorder
from core.verify.compare import Budget, Expected, agreement, budget_of, least_budget
from core.verify.expected import expectations
from core.verify.guard import GuardedLaunch, Twins
from core.verify.memory.before import Before, Site
from core.verify.memory.weights import PageSums
from core.verify.policies import REFERENCE, parse_policy
from core.verify.shadow import Shadow, Shadows
from core.verify.values import same_bits
from core.verify.verdict import OURS, Broken, Side, Tally, Verdict, judge_sides
from core.verify.vote import vote_on

_OFTEN = 16  # calls of a node in one of which its states and weights are looked at
_REPEATS = 8  # launches of a kernel from the inputs of its first wrong call


class CrossCheck:
    """Observes a run: computes every node by the kernels of other policies too, and compares.

    All sides see the same inputs, so an error does not travel from node to node. Kernels that agree
    within the least budget that the op can have are right together. A doubtful call is settled by
    the float64 reference, with which each side is compared within the op's own budget. Where all
    sides were right, the node's later calls have the smallest budget that it was given so.

    A fused kernel is compared with its unfused composition where the policy has the same backend,
    or has no such kernel. A prefill compares whole states, such as a KV cache; a decode step
    compares what it may write (everything for `reference`).

    A kernel is wrong too that writes beyond its outputs or its workspace, or changes an input. It
    runs in a twin of the plan with guard bytes; its inputs are kept. States and weights, which are
    large, are looked at in each node's first call of a phase and then in each sixteenth (in every
    call for `reference`), and so is other tensors' memory beside its outputs. A later look reads
    the weights once, after all sides ran, and finds what was changed since the look before. What
    was changed is put back.

    against   the texts of policies, see `core.verify.policies`; `reference` asks for the reference
              at every call
    stop      raise CheckError at the first kernel that is wrong, instead of counting on
    recorder  leaves replay capsules of what was wrong
    moving    states change between the plans that are run here too, so that the other sides' copies
              are made equal to them before each
    """

    def __init__(self, registry: Registry, against: Sequence[str], *, stop: bool = False,
                 recorder: Recorder | None = None, moving: bool = False) -> None:
        self.registry, self.stop, self.recorder = registry, stop, recorder
        self._moving = moving
        self.tally = Tally(against)
        self._always = REFERENCE in against  # ask the reference at every call
        policies = {name: parse_policy(name, registry) for name in against}
        self._shadows = {n: Shadows(p) for n, p in policies.items() if p is not None}
        self._budgets: dict[tuple[str, str, str], Budget] = {}  # by node, phase and result
        self._twins, self._sums = Twins(), PageSums()
        self._calls: Counter[tuple[str, str]] = Counter()  # by node and phase
        self._repeated: set[Kernel] = set()  # those whose first wrong call was launched again

    def run(self, plan: Plan) -> None:
        """Run the plan. Raises CheckError where `stop` is set and a kernel is wrong."""
        guarded = self._twins.of(plan)
        for shadows in self._shadows.values() if self._moving else ():
            shadows.follow(guarded.plan)
        for number, (binding, launch) in enumerate(guarded.walk()):
            self._node(guarded.plan, binding, launch, number)
        self._twins.hand_over(plan)

    def _node(self, plan: Plan, binding: Binding, launch: GuardedLaunch, number: int) -> None:
        found = {name: s.of(plan, binding.covers, binding.outputs.values(),
                            fusion=binding.kernel.backend not in s.policy.backends)
                 for name, s in self._shadows.items()}
        shadows = {name: s for name, s in found.items() if isinstance(s, Shadow)}
        recorder = self.recorder if self.recorder and self.recorder.wants(binding) else None
        due, first = self._due(launch.site, number)
        anew = recorder is not None or self._always or first
        before = Before(launch.site, whole=anew or due, sums=self._sums, anew=anew)
        for shadow in shadows.values():
            shadow.prepare()
        rules = launch(before.whole) + before.changed()
        broken: dict[str, Broken] = {OURS: [(binding.kernel, text) for text in rules]}
        mine = launch.site.found()
        for name, shadow in shadows.items():
            shadow.run(before.whole, anew)
            broken[name] = shadow.broken + [(shadow.kernels[-1], t) for t in before.changed()]
        if due and not anew and (lost := before.changed_weights()):
            broken = who_changed(lost, binding, launch, before, shadows)
        if recorder is not None:
            recorder.asked(plan, binding, before.inputs(), mine)
        agreed = {} if any(broken.values()) else {
            n: v for n, s in shadows.items() if (v := self._agreement(binding, mine, s, before))}
        sides, vote = dict[str, Side](), ""
        if self._always or len(agreed) < len(shadows):
            inputs = before.inputs()
            # with a weight changed, numbers say nothing more
            expected = {} if before.lost else expectations(binding.op, inputs, binding.call.attrs)
            sides = judge_sides(binding, mine, shadows, expected, broken)
            if any(side.faults for side in sides.values()):
                vote = str(vote_on(sides.values(), expected, binding.tolerance, self.registry))
                if sides[OURS].faults and binding.kernel not in self._repeated:
                    self._repeated.add(binding.kernel)
                    vote += repeated(binding, launch, before, mine)
            else:
                self._remember(binding, expected)
        self.tally.count(launch.site, found, agreed, sides, vote)
        if vote:
            self._report(plan, binding, inputs, sides, vote)
            for shadow in shadows.values():
                shadow.follow()

    def _due(self, site: Site, number: int) -> tuple[bool, bool]:
        """Return (whether states and weights are looked at too, whether this is the node's first
        call in a phase): they are at the first, and then at each sixteenth."""
        place = site.binding.node.name, site.phase
        count = self._calls[place]
        self._calls[place] = count + 1
        return count == 0 or (count + number) % _OFTEN == 0, count == 0

    def _agreement(self, binding: Binding, mine: Mapping[str, Array], shadow: Shadow,
                   before: Before) -> Verdict | None:
        """Compare the two sides with each other. Returns None where that leaves a doubt."""
        found = {}
        for key, value in binding.outputs.items():
            place = before.places.get(key, ...)
            a, b = mine[key][place], shadow.result(value)[place]
            budget = self._budgets.get((binding.node.name, binding.call.phase, key))
            close = agreement(a, b, budget or least_budget(binding.tolerance, value.spec.dtype))
            if close is None:
                return None
            found[key] = close
        return Verdict(found)

    def _remember(self, binding: Binding, expected: Mapping[str, Expected]) -> None:
        """Keep the smallest budget that the reference has given this node, for its next calls."""
        for key, of in expected.items():
            place = (binding.node.name, binding.call.phase, key)
            found = budget_of(of, binding.tolerance)
            old = self._budgets.get(place, found)
            self._budgets[place] = Budget(*map(min, astuple(found), astuple(old)))

    def _report(self, plan: Plan, binding: Binding, inputs: Mapping[str, Array | None],
                sides: Mapping[str, Side], vote: str) -> None:
        """Write capsules of the faults. Raises CheckError where `stop` is set."""
        for side in sides.values():
            for _, kernel in side.faults:
                reason = (f"node {binding.node.name}: {kernel} is wrong: {side.verdict.reason}; "
                          f"{vote}")
                path = self.recorder and self.recorder.trouble(plan, binding, inputs, side.results,
                                                               kernel, reason)
                if self.stop:
                    raise CheckError(reason + (f"; the call is in {path}" if path else ""))


def who_changed(lost: Sequence[str], binding: Binding, launch: GuardedLaunch, before: Before,
                shadows: Mapping[str, Shadow]) -> dict[str, Broken]:
    """Launch each side again to see which of them changes the weights `lost`. Where none does, the
    step's own kernel is named, with who else it may have been."""
    before.rewind()
    launch(True)
    broken: dict[str, Broken] = {
        OURS: [(binding.kernel, text) for text in before.changed_weights()]}
    before.changed()
    for name, shadow in shadows.items():
        shadow.prepare()
        shadow.run()
        broken[name] = [(shadow.kernels[-1], text) for text in before.changed_weights()]
        before.changed()
    if not any(broken.values()):
        others = ", ".join(k.id for s in shadows.values() for k in s.kernels)
        broken[OURS] = [(binding.kernel, f"{text}, in one of its last {_OFTEN} calls, and not when "
                         f"launched again; or {others or 'another kernel'} did") for text in lost]
    return broken


def repeated(binding: Binding, launch: GuardedLaunch, before: Before,
             results: Mapping[str, Array]) -> str:
    """Launch a step again from the same inputs, and say so where that gives other bits. The first
    results are put back."""
    first, others = {k: np.array(a) for k, a in results.items()}, 0
    for _ in range(_REPEATS):
        before.rewind()
        launch(True)
        before.changed()
        others += not all(same_bits(t.numpy(), first[k]) for k, t in binding.results.items())
    for key, tensor in binding.results.items():
        tensor.write(first[key])
    return (f"; a race, or hidden state: {others} of {_REPEATS} repeats from the same inputs "
            "differ" if others else "")
