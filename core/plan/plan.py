"""Plan: binds a graph to kernels once, so that a step is a list of calls with nothing to decide."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from core import isolation
from core.failures import captured, raise_named
from core.ir.graph import Graph, Value
from core.plan.arena import Arena, Place, SharedArenas, allocate
from core.plan.ledger import Ledger, LedgerEntry
from core.plan.lower import Binding, lower
from core.plan.policy import KernelPolicy
from core.plan.weights import WeightStore
from core.plugins.backend import Backend, Launch
from core.tensor.tensor import Array, Tensor


class Plan:
    """Hold a graph with numbers for dimensions, ready to run.

    tensors     the graph's inputs and states by name, on the first backend's device
    repeats     the step feeds itself and will run many times: the backend may capture it
    guard       bytes left unused around each activation, for tests that look for stray writes
    arenas      memory shared with plans that never run at the same time; by default its own
    """

    def __init__(self, graph: Graph, policy: KernelPolicy, weights: WeightStore,
                 tensors: Mapping[str, Tensor], *, repeats: bool = False,
                 guard: int = 0, arenas: SharedArenas | None = None) -> None:
        self.graph, self.policy, self.weights = graph, policy, weights
        self.bindings, self._home = lower(graph, policy)
        self._tensors: dict[Place, Tensor] = {
            (v, self._home[v]): tensors[v.name]
            for kind in ("input", "state") for v in graph.roots(kind)}
        backends = [self._backend(b) for b in
                    dict.fromkeys([*policy.backends, *(s.kernel.backend for s in self.bindings)])]
        #: of the backends that share a device, the first: memory is its, and it reads results
        self._owners = {b.allocator.device: b for b in reversed(backends)}
        allocators = {device: b.allocator for device, b in self._owners.items()}
        memory = allocate(self.bindings, graph.outputs.values(), self._home, self._tensors.keys(),
                          allocators, guard, arenas or SharedArenas())
        self._tensors.update(memory.tensors)
        self.arenas: dict[str, Arena] = memory.arenas
        self.scratch = memory.scratch  #: by the binding's number
        self._bind(memory.scratch)
        for backend in backends:
            backend.settle()
        launches = [launch for binding in self.bindings for launch in binding.launches]
        every = partial(run_all, launches, self.bindings)  # no plan: its memory goes with the plan
        self._used = used = [self._backend(b)
                             for b in sorted({s.kernel.backend for s in self.bindings})]
        self._run: Launch = self.in_any_thread(every)
        self.captured = False  #: whether a backend has recorded the step for replay
        places = {s.device for s in self.bindings} | set(self._home.values())
        if len(backends) > len(self._owners):
            for backend in backends:  # weights that one has loaded may be read by another
                backend.allocator.synchronize()
        if (repeats and isolation.active is None and len(used) == len(places) == 1
                and used[0] is self._owners[places.pop()]):
            self.captured = True
            self._run = captured(used[0].in_any_thread(used[0].capture(every)),
                                 len(self.bindings), used[0].name)

    # running

    def run(self) -> None:
        """Compute every output from the current inputs. No checks, no allocation, no decisions."""
        self._run()

    def walk(self) -> Iterator[tuple[Binding, Launch]]:
        """Yield the bindings, each with a function that runs it: for checking and profiling."""
        for binding in self.bindings:
            yield binding, self.in_any_thread(partial(run_all, binding.launches, [binding]))

    def in_any_thread(self, launch: Launch) -> Launch:
        """Return a launch of bindings of this plan that any thread may call."""
        for backend in self._used:
            launch = backend.in_any_thread(launch)
        return launch

    # looking

    def tensor(self, value: Value, device: str | None = None) -> Tensor:
        """Return the tensor of a value, on its own device unless another is named."""
        stored = self._tensors[value.root, device or self._home[value.root]]
        shape = value.spec.sizes
        return stored if stored.shape == shape else stored.view(*shape)

    def output(self, name: str) -> Tensor:
        """Return the tensor of the named output, which holds its value after a run."""
        return self.tensor(self.graph.outputs[name])

    def read(self, binding: Binding, name: str) -> Array | None:
        """Return a copy of a binding's input: a weight as the file holds it, None if absent."""
        value = binding.inputs[name]
        if value is None:
            return None
        if value.kind == "weight":
            return self.weights.arrays[value.root.name].reshape(value.spec.sizes)
        return np.array(binding.arguments[name].numpy())

    def packed(self, binding: Binding) -> dict[str, Tensor]:
        """Return the tensors of the weights that the binding's kernel has prepacked, by
        parameter."""
        return self.weights.packed(binding.kernel, binding.call, binding.weight_names)

    @property
    def ledger(self) -> Ledger:
        """Return what runs each node, and what was refused."""
        registry = self.policy.registry
        return Ledger(tuple(LedgerEntry(
            s.node.name, s.op.name, s.call.phase,
            int(s.call.dims.get("T", s.call.dims.get("S", 1))), s.kernel.id,
            registry.sources[s.kernel],
            tuple(n.name for n in s.covers), tuple(s.refused), "; ".join(s.notes),
            registry.guest(s.kernel))
            for s in self.bindings))

    @property
    def activation_bytes(self) -> tuple[int, int]:
        """Return (bytes of the arenas, bytes that separate buffers would take)."""
        return (sum(a.layout.peak for a in self.arenas.values()),
                sum(a.layout.total for a in self.arenas.values()))

    # binding

    def _backend(self, name: str) -> Backend:
        return self.policy.registry.backend(name)

    def _bind(self, scratch: Mapping[int, Tensor]) -> None:
        updated = {v.root for n in self.graph.nodes for v in n.outputs.values()
                   if v.alias_of is not None}
        copied: set[Place] = set()
        made: dict[tuple[Value, Backend], tuple[Tensor, Any]] = {}  # what several kernels take

        def tensor_of(value: Value, backend: Backend) -> tuple[Tensor, Any]:
            """Return the tensor of a value on a backend's device, and its native array."""
            if (value, backend) not in made:
                tensor = self.tensor(value, backend.allocator.device)
                made[value, backend] = tensor, backend.native(tensor)
            return made[value, backend]

        for i, binding in enumerate(self.bindings):
            backend = self._backend(binding.kernel.backend)
            native = backend.in_any_thread(partial(self._prepared, binding, backend))()
            for name, value in binding.inputs.items():
                if value is None:
                    native[name] = None
                elif value.kind == "weight":
                    if name not in native:  # else prepare has replaced it
                        native[name] = self.weights.native(value.root.name, backend,
                                                           value.spec.sizes)
                else:
                    place = (value.root, binding.device)
                    # what is updated between its readers is copied for each of them
                    if self._home[value.root] != binding.device and (
                            place not in copied or value.root in updated):
                        copied.add(place)
                        self._copy(binding, name, value)
                    binding.arguments[name], native[name] = tensor_of(value, backend)
            for name, value in binding.outputs.items():
                binding.results[name], array = tensor_of(value, backend)
                native.setdefault(name, array)  # an input that is updated has its own
            if i in scratch:
                native["workspace"] = backend.native(scratch[i])
            launch = backend.in_any_thread(partial(
                binding.kernel.bind_to, binding.call, native, backend.allocator.synchronize))()
            owner = self._owners[binding.device]
            # each backend has a queue of its own: a guest on the device waits, and is waited for
            binding.launches += [launch] if owner is backend else [
                backend.after(owner), launch, owner.after(backend)]

    def _prepared(self, binding: Binding, backend: Backend) -> dict[str, Any]:
        if binding.kernel.prepare is None or not binding.weight_names:
            return {}
        return dict(self.weights.prepared(binding.kernel, backend, binding.call,
                                          binding.weight_names))

    def _copy(self, binding: Binding, name: str, value: Value) -> None:
        source, target = self.tensor(value.root), self.tensor(value.root, binding.device)

        def copy() -> None:
            target.write(np.ascontiguousarray(source.numpy()))
        binding.launches.append(copy)
        binding.notes.append(f"copies `{name}` from {source.device} to {binding.device}")


def run_all(launches: list[Launch], bindings: list[Binding]) -> None:
    """Launch everything; an error names whose launch raised it."""
    try:
        for launch in launches:
            launch()
    except BaseException as error:  # whose launch it was is looked for only now
        of = next(b for b in bindings if any(run is launch for run in b.launches))
        raise_named(error, "launch", of.kernel, of.call)
