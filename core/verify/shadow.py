"""Shadow: nodes of a running plan computed by other kernels, from the same tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from core.ir.graph import Graph, Node, Value
from core.ir.subgraph import extract
from core.plan.plan import Plan
from core.plan.policy import Selector
from core.tensor.allocator import Buffer
from core.tensor.tensor import Array, Tensor

#: One opinion's own copies of a session's states, by the memory that each follows.
States = dict[Buffer, Tensor]


class Shadow:
    """A plan over `nodes` of `plan` with another selector, for the values `outputs`.

    What is only read is bound where it lies, or copied where the devices differ; weights come from
    the plan's own store, so that prepacked forms are shared. What the nodes update in place is the
    shadow's own: `states` keeps it from step to step, in step with the original's.

    Raises NoKernelError where the selector's backends do not take the nodes.
    """

    def __init__(self, plan: Plan, nodes: Sequence[Node], outputs: Iterable[Value],
                 selector: Selector, *, fusion: bool, states: States) -> None:
        part = extract(plan.graph, nodes, outputs)
        device = selector.registry.backend(selector.backends[0]).allocator.device
        updated = {v.root.name for n in part.nodes for v in n.outputs.values()
                   if v.alias_of is not None}
        tensors: dict[str, Tensor] = {}
        self._copied: list[tuple[Tensor, Tensor]] = []  # (from, to), before each run
        self.states: dict[str, tuple[Tensor, Tensor]] = {}  #: (original, our own) by name
        for value in part.roots("input"):
            original = plan.tensor(plan.graph.values[value.name])
            if value.name in updated:
                kept = plan.graph.values[value.name].kind == "state"
                own = states.get(original.buffer) if kept else None
                own = own or self._new(original, selector)
                tensors[value.name] = own
                if kept:
                    states[original.buffer] = own
                    self.states[value.name] = original, own
                else:
                    self._copied.append((original, own))
            elif original.device == device:
                tensors[value.name] = original
            else:
                tensors[value.name] = self._new(original, selector)
                self._copied.append((original, tensors[value.name]))
        self.follow()
        self.plan = Plan(part, selector, plan.weights, tensors, fusion=fusion)
        self._outputs = {name: self.plan.output(name) for name in part.outputs}

    @staticmethod
    def _new(like: Tensor, selector: Selector) -> Tensor:
        allocator = selector.registry.backend(selector.backends[0]).allocator
        return Tensor.empty(like.shape, like.dtype, allocator)

    @property
    def graph(self) -> Graph:
        return self.plan.graph

    @property
    def kernels(self) -> list[str]:
        """The ids of the kernels that compute it."""
        return list(dict.fromkeys(s.kernel.id for s in self.plan.steps))

    def prepare(self) -> None:
        """Take over what the original is about to update, and what lies on another device."""
        for source, target in self._copied:
            target.write(np.ascontiguousarray(source.numpy()))

    def run(self) -> None:
        self.plan.run()

    def result(self, value: Value) -> Array:
        """The array of a value of the original graph, where the last run left it."""
        return self._outputs[value.name].numpy()

    def results(self, outputs: Mapping[str, Value]) -> dict[str, Array]:
        """`result` for each, by the op's result names."""
        return {key: self.result(value) for key, value in outputs.items()}

    def follow(self) -> None:
        """Make our states equal to the original's: at first, and after a difference."""
        for original, own in self.states.values():
            own.write(np.ascontiguousarray(original.numpy()))
