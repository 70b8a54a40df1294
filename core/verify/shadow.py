"""Computes nodes of a running plan by other kernels, from the same tensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from weakref import WeakKeyDictionary

import numpy as np

from core.errors import NoKernelError
from core.ir.graph import Node, Value
from core.plan.arena import GUARD
from core.plan.plan import Plan
from core.plan.policy import KernelPolicy
from core.plugins.kernel import Kernel
from core.tensor.allocator import Buffer
from core.tensor.tensor import Array, Tensor
from core.verify.guard import GuardedPlan, guarded_tensor
from core.verify.memory.before import Before
from core.verify.memory.buffers import Watched
from core.verify.memory.weights import PageSums
from core.verify.subgraph import extract

#: One policy's own copies of a session's states, by the memory that each follows.
States = dict[Buffer, Tensor]
#: Shadows with activations below this are kept from run to run; larger ones are made again.
_KEPT_BYTES = 1 << 20


class Shadow:
    """Computes `nodes` of `plan` by the kernels of another policy, for the values `outputs`.

    Tensors that are only read are bound where they lie, or copied where the devices differ. Weights
    come from the plan's own store, so that prepacked forms are shared. The shadow has its own copy
    of what the nodes update in place; `states` keeps it from step to step, equal to the original.

    `sums` are those of weights, from looks of other shadows too.

    Raises NoKernelError where the policy's backends do not take the nodes.
    """

    def __init__(self, plan: Plan, nodes: Sequence[Node], outputs: Iterable[Value],
                 policy: KernelPolicy, *, states: States, sums: PageSums) -> None:
        part = extract(plan.graph, nodes, outputs)
        allocator = policy.primary.allocator
        updated = {v.root.name for n in part.nodes for v in n.outputs.values()
                   if v.alias_of is not None}
        tensors: dict[str, Tensor] = {}
        self._copied: list[tuple[Tensor, Tensor]] = []  # (from, to), before each run
        self._followed: list[tuple[Tensor, Tensor]] = []  # (a state, our own)
        for name in (v.name for v in part.roots("input")):
            original = plan.tensor(plan.graph.values[name])
            if name not in updated and original.device == allocator.device:
                tensors[name] = original
                continue
            state = name in updated and plan.graph.values[name].kind == "state"
            own = (states.get(original.buffer) if state else None) or guarded_tensor(
                original.shape, original.dtype, allocator)
            if state:
                states[original.buffer] = own
            (self._followed if state else self._copied).append((original, own))
            tensors[name] = own
        self.follow()
        self.plan = Plan(part, policy, plan.weights, tensors, guard=GUARD)
        self._guarded = GuardedPlan(self.plan)
        self._sums = sums
        #: (kernel, sentence) for each rule that a kernel broke in the last run
        self.broken: list[tuple[Kernel, str]] = []
        self.kernels = [s.kernel for s in self.plan.bindings]
        self._outputs = {name: Watched(self.plan.output(name)) for name in part.outputs}

    def prepare(self) -> None:
        """Copy what the original is about to update, and what lies on another device."""
        for source, target in self._copied:
            target.write(np.ascontiguousarray(source.numpy()))

    def run(self, whole: bool = False, anew: bool = True) -> None:
        """Compute the nodes. `whole`: look at prepacked weights too, `anew` also before."""
        self.broken = []
        for binding, launch in self._guarded.walk():
            # who runs a single node looks at its inputs; what lies between several is ours
            packed = whole and bool(self.plan.packed(binding))
            before = Before(launch.site, whole=packed, sums=self._sums, anew=anew) if (
                packed or len(self.kernels) > 1) else None
            said = launch(whole)
            if before is not None:
                said += before.changed() + ([] if anew else before.changed_weights())
            self.broken += [(binding.kernel, text) for text in said]

    def result(self, value: Value) -> Array:
        """Return the array of a value of the original graph, where the last run left it."""
        return self._outputs[value.name].array()

    def follow(self) -> None:
        """Make our states equal to the original's: when made, and after a difference."""
        for original, own in self._followed:
            own.write(np.ascontiguousarray(original.numpy()))


class Shadows:
    """Makes the shadows of one policy, and keeps them with their states from run to run."""

    def __init__(self, policy: KernelPolicy) -> None:
        self.policy = policy
        self._kept: WeakKeyDictionary[Plan, dict[Node, Shadow | str]] = WeakKeyDictionary()
        self._states: States = {}
        self._sums = PageSums()

    def of(self, plan: Plan, nodes: Sequence[Node], outputs: Iterable[Value], *,
           fusion: bool = True) -> Shadow | str:
        """Return the shadow of `nodes`, unfused on request; the reason where the policy has no
        kernel for one."""
        kept = self._kept.setdefault(plan, {})
        found = kept.get(nodes[-1])
        if found is None:
            try:
                policy = self.policy if fusion else replace(self.policy, fusion=False)
                found = Shadow(plan, nodes, outputs, policy, states=self._states,
                               sums=self._sums)
            except NoKernelError as error:
                found = str(error)  # not the error: its frames would keep the plan alive
            if isinstance(found, str) or found.plan.activation_bytes[0] < _KEPT_BYTES:
                kept[nodes[-1]] = found
        return found

    def follow(self, plan: Plan) -> None:
        """Make the states of a plan's shadows equal to the plan's, where others have changed these
        since the last run."""
        for found in self._kept.get(plan, {}).values():
            if isinstance(found, Shadow):
                found.follow()
