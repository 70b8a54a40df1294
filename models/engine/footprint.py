"""Footprint: computes from shapes alone the bytes that a session will take on each device.

The lowering, the layout and the step inputs are those of a real session, but no tensor is made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from core.errors import BackendError
from core.failures import ask
from core.ir.graph import Graph
from core.plan.arena import GUARD, arena_layout, find_needs
from core.plan.lower import Binding, lower, make_call
from core.plan.policy import KernelPolicy
from core.plan.weights import WeightStore, prepared_key
from core.plugins.backend import Launch
from core.plugins.kernel import Kernel
from core.runtime.step import (
    BLOCK_SIZE,
    DECODE,
    GraphKind,
    is_cache,
    packed_inputs,
    step_dims,
)
from core.tensor.host import HostAllocator
from core.tensor.tensor import TensorSpec


@dataclass
class Footprint:
    """Hold bytes by device.

    cache     the KV cache
    inputs    what steps read beside weights: ids, positions, the block table; guards of the cache
    decode    the arena of the decode step
    prompt    the arenas of the prompt's chunks
    packed    what kernels make of weights, by (kernel, dtype) too
    copied    weights in device memory of their own; `shared` are read where the host holds them
    """

    cache: Counter[str] = field(default_factory=Counter)
    inputs: Counter[str] = field(default_factory=Counter)
    decode: Counter[str] = field(default_factory=Counter)
    prompt: Counter[str] = field(default_factory=Counter)
    packed: dict[tuple[str, str, str], int] = field(default_factory=dict)
    copied: Counter[str] = field(default_factory=Counter)
    shared: set[str] = field(default_factory=set)

    def packed_on(self, device: str) -> int:
        return sum(n for (place, _, _), n in self.packed.items() if place == device)

    def loaded(self, device: str) -> int:
        """Return the bytes that the device's allocator has handed out once the model is loaded."""
        parts = (self.cache, self.inputs, self.decode, self.copied)
        return sum(part[device] for part in parts) + self.packed_on(device)

    def peak(self, device: str) -> int:
        """Return the bytes in use with the plans of the prompt too."""
        return self.loaded(device) + self.prompt[device]


@dataclass
class _Reads:
    """Holds the weights that bindings read: as they are, by (name, device); prepacked, once
    for each key."""

    plain: set[tuple[str, str]] = field(default_factory=set)
    packed: dict[tuple[object, ...], tuple[Kernel, str, tuple[TensorSpec, ...]]] = field(
        default_factory=dict)


def find_footprint(build: Callable[[GraphKind], Graph], weights: WeightStore,
                   policy: KernelPolicy, *,
                   vocab_size: int, max_context: int, prompt: int = 0, chunk: int = 512,
                   unopened: str | None = None) -> Footprint:
    """Find what a `Session` with these arguments will hold, and a prompt of `prompt` tokens add.
    Weights give only their specs.

    unopened  the device of a backend that cannot be used here: every node is then a binding of its
              own, without scratch or prepacked weights
    Raises NoKernelError as the session would.
    """
    blocks = -(-max_context // BLOCK_SIZE)
    first = unopened or policy.primary.allocator.device
    found, reads = Footprint(), _Reads()

    def arena(kind: GraphKind, tokens: int, inputs: Counter[str]) -> Counter[str]:
        graph = build(kind).bind({**step_dims(blocks), "T": tokens})
        inputs[first] += packed_inputs(graph)[1]
        if not found.cache:
            states = graph.roots("state")
            found.cache[first] = sum(v.spec.nbytes for v in states)
            found.inputs[first] += 2 * GUARD * len(states)
        return _arena(graph, policy, reads, unopened)

    found.decode += arena(DECODE, 1, found.inputs)
    rest = prompt and (prompt % chunk or chunk)
    parts = [("last", rest)] * (prompt > 0) + [("none", chunk)] * (prompt > chunk)
    for head, tokens in parts:
        sampling = "argmax" if head == "last" else "none"
        found.prompt += arena(GraphKind(head, sampling), tokens, found.prompt)
    _count_weights(found, reads, weights, policy, unopened)
    return found


def batch_footprint(build: Callable[[GraphKind], Graph], weights: WeightStore,
                    policy: KernelPolicy, kind: GraphKind, dims: Mapping[str, int],
                    unopened: str | None = None) -> Footprint:
    """Find what an `Executor` will hold whose largest step is of this kind and size, with the one
    block of KV cache that `dims` say; otherwise as `find_footprint`."""
    first = unopened or policy.primary.allocator.device
    found, reads, graph = Footprint(), _Reads(), build(kind).bind(dims)
    found.cache[first] = sum(v.spec.nbytes for v in graph.roots("state") if is_cache(v.name))
    found.inputs[first] = packed_inputs(graph)[1]
    found.decode += _arena(graph, policy, reads, unopened)
    _count_weights(found, reads, weights, policy, unopened)
    return found


def _arena(graph: Graph, policy: KernelPolicy, reads: _Reads, unopened: str | None,
           ) -> Counter[str]:
    """Return the bytes of a plan's arenas; what its bindings read is added to `reads`."""
    roots = [v for kind in ("input", "state") for v in graph.roots(kind)]
    if unopened is None:
        bindings, home = lower(graph, policy)
    else:
        bindings = _plain_bindings(graph, policy.backends[0], unopened)
        home = {v.root: unopened for s in bindings for v in s.outputs.values()}
        home.update(dict.fromkeys(roots, unopened))
    for binding in bindings:
        names = binding.weight_names
        packed: Mapping[str, TensorSpec] = {}
        if binding.kernel.packs is not None and names:
            packed = ask(binding.kernel, "packs", binding.call)
            reads.packed[prepared_key(binding.kernel, binding.call, names)] = (
                binding.kernel, binding.device, tuple(packed.values()))
        reads.plain |= {(v.root.name, binding.device) for k, v in binding.inputs.items()
                        if v is not None and v.kind == "weight" and k not in packed}
    values, scratch = find_needs(bindings, graph.outputs.values(), home,
                                 {(v, home[v]) for v in roots})
    needs = [*values.values(), *scratch.values()]
    return Counter({device: arena_layout([n for n in needs if n.device == device]).peak
                    for device in {n.device for n in needs}})


def _plain_bindings(graph: Graph, backend: str, device: str) -> list[Binding]:
    """Return a binding for each node by a kernel of which nothing is known."""
    return [Binding(n, n.op, make_call(n.op, n.inputs, n.attrs, n.name),
                 Kernel(n.op.name, backend, "unknown", _unbound, {}), device, [], n.inputs,
                 n.outputs, (n,)) for n in graph.nodes]


def _unbound(*_: object, **__: object) -> Launch:
    raise BackendError("a step of a backend that is not there was bound")


def _count_weights(found: Footprint, reads: _Reads, weights: WeightStore, policy: KernelPolicy,
                   unopened: str | None) -> None:
    borrows = {unopened: unopened == HostAllocator.device} if unopened else {
        b.allocator.device: b.allocator.borrow_host(np.zeros(1, np.uint8)) is not None
        for b in map(policy.registry.backend, _backends(reads, policy))}
    for name, device in reads.plain:
        if borrows[device]:
            found.shared.add(name)
        else:
            found.copied[device] += weights.spec(name).nbytes
    for kernel, device, specs in reads.packed.values():
        for spec in specs:
            key = (device, kernel.id, spec.dtype.short)
            found.packed[key] = found.packed.get(key, 0) + spec.nbytes


def _backends(reads: _Reads, policy: KernelPolicy) -> list[str]:
    """List the backends in use: an override may name others than the policy's own."""
    return list(dict.fromkeys([*policy.backends, *(o.backend for o in policy.overrides),
                               *(k.backend for k, _, _ in reads.packed.values())]))

