"""Keep the plans of steps: one for each kind of step and size, over the same KV cache."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from core.errors import CheckError
from core.ir.graph import Graph
from core.plan.arena import GUARD, SharedArenas
from core.plan.plan import Plan
from core.plan.policy import KernelPolicy
from core.plan.weights import WeightStore
from core.runtime.step import GraphKind, Observer, is_cache, packed_inputs
from core.tensor.dtype import DType, i32
from core.tensor.tensor import Array, Tensor

RESULTS = ("token", "chosen", "rank", "top_ids", "top")


class BoundStep:
    """Holds a plan and its inputs, which lie in one buffer: a step uploads them by one copy.

    fields   the inputs as host arrays, by name; `upload` moves them to the device
    outputs  the outputs by name; `here` has those that lie in the host's memory, as arrays
    results  the names of those that a batch asks for
    """

    def __init__(self, graph: Graph, policy: KernelPolicy, weights: WeightStore,
                 states: Mapping[str, Tensor], *, repeats: bool, arenas: SharedArenas | None,
                 ) -> None:
        places, nbytes = packed_inputs(graph)
        self._whole = Tensor.zeros((nbytes // 4,), i32, policy.primary.allocator)
        # memory of the host is written at once: its steps are complete when they return
        self._here = self._whole.device == "cpu"
        self._staged = self._whole.numpy() if self._here else np.zeros(nbytes // 4, np.int32)
        self.fields = {name: np.ndarray(spec.sizes, spec.dtype.numpy, self._staged, offset)
                       for name, (spec, offset) in places.items()}
        inputs = {name: Tensor(self._whole.buffer, spec.sizes, spec.dtype, offset)
                  for name, (spec, offset) in places.items()}
        self.plan = Plan(graph, policy, weights, {**states, **inputs}, repeats=repeats,
                         arenas=arenas)
        self._backend, self._bytes = policy.primary, self._staged.view(np.uint8)
        self.outputs = {name: self.plan.output(name) for name in graph.outputs}
        self.here = {n: t.numpy() for n, t in self.outputs.items() if t.device == "cpu"}
        self.results = [n for n in RESULTS if n in self.outputs]

    def upload(self) -> None:
        """Queue the copy of all fields to the device; they may change once it returns."""
        if not self._here:
            self._backend.allocator.copy_from_host(self._whole.buffer, self._bytes)

    def read_later(self, name: str, *, alone: bool) -> Callable[[], Array]:
        """Queue a read of an output's present value. `alone`: no other step is queued."""
        if not alone or name not in self.here:
            return self._backend.read_later(self.outputs[name])
        value = self.here[name].copy()
        return lambda: value


class StepPlans:
    """Makes each plan when it is first asked for. All share the states: the KV cache.

    build   gives the graph of a kind, with dimensions that are names
    dims    those that all plans share
    keep    how many plans are kept, by last use
    arenas  memory that the plans share, None where each has its own
    """

    def __init__(self, build: Callable[[GraphKind], Graph], weights: WeightStore,
                 policy: KernelPolicy, dims: Mapping[str, int], *, keep: int,
                 arenas: SharedArenas | None = None) -> None:
        self.policy, self.weights, self.dims = policy, weights, dict(dims)
        self.build, self._keep, self._arenas = build, keep, arenas
        self._steps: OrderedDict[tuple[object, ...], BoundStep] = OrderedDict()
        self.states: dict[str, Tensor] = {}
        self.observer: Observer | None = None
        self._backends = [policy.registry.backend(name) for name in dict.fromkeys(
            [*policy.backends, *(o.backend for o in policy.overrides)])]

    def run(self, plan: Plan) -> None:
        """Run a plan, by the observer if there is one. Raises BackendError where a backend can be
        used no longer."""
        for backend in self._backends:
            backend.check_alive()
        if self.observer is None:
            plan.run()
        else:
            self.observer.run(plan)

    @contextmanager
    def observed(self, observer: Observer | None) -> Iterator[None]:
        """Let an observer run every plan in the block; the former one is back after it."""
        former, self.observer = self.observer, observer
        try:
            yield
        finally:
            self.observer = former

    def get(self, kind: GraphKind, dims: Mapping[str, int]) -> BoundStep:
        """Return the plan of a step of that kind and size. Raises NoKernelError."""
        key = (kind, *dims.values())
        if key not in self._steps:
            graph = self.build(kind).bind({**self.dims, **dims})
            for value in graph.roots("state"):
                if value.name not in self.states:
                    self.states[value.name] = Tensor.zeros(
                        value.spec.sizes, value.spec.dtype, self.policy.primary.allocator, GUARD)
            self._steps[key] = BoundStep(graph, self.policy, self.weights, self.states,
                                         repeats=dims["T"] == dims["S"], arenas=self._arenas)
            if len(self._steps) > self._keep:
                self._steps.popitem(last=False)
        self._steps.move_to_end(key)
        return self._steps[key]

    @property
    def made(self) -> list[Plan]:
        """List the plans that are kept, the one used last at the end."""
        return [step.plan for step in self._steps.values()]

    @property
    def cache(self) -> list[Tensor]:
        """List the tensors of the KV cache, scales included."""
        return [t for name, t in self.states.items() if is_cache(name)]

    @property
    def kv_bytes(self) -> int:
        """Return the bytes of the KV cache, scales included."""
        return sum(t.nbytes for t in self.cache)

    @property
    def kv_dtype(self) -> DType:
        """Return the dtype of keys and values; an int8 cache has float32 scales beside them."""
        return max(self.cache, key=lambda t: t.nbytes).dtype

    def forget(self) -> None:
        """Let go of every plan and of the states, not of the activations' shared memory."""
        self._steps.clear()
        self.states.clear()

    def clear(self) -> None:
        """Let go of every plan and tensor."""
        self.forget()
        if self._arenas is not None:
            self._arenas.clear()


def sampled_logit(token: int, logits: Array | None, vocab_size: int) -> float | None:
    """Return a sampled token's logit, None where the logits are not at hand.

    It tells of the whole row: `argmax` and `sample` take the largest logit where that one is not
    finite, and no -Inf otherwise. Raises CheckError for a token outside the vocabulary.
    """
    if not 0 <= token < vocab_size:
        raise CheckError(f"a kernel sampled token {token}, expected 0 to {vocab_size - 1}; "
                         "--check reference finds the kernel")
    return None if logits is None else float(logits.item(token))
