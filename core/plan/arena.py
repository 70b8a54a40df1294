"""Arenas: place a plan's activations and scratch memory in one buffer a device, by liveness."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from core.failures import ask
from core.ir.graph import Value
from core.plan.liveness import Layout, Lifetime, lay_out
from core.plan.lower import Binding
from core.plugins.kernel import Kernel
from core.tensor.allocator import DeviceAllocator
from core.tensor.dtype import i8
from core.tensor.tensor import Tensor, TensorSpec

POISON = 0xFF  # a byte that reads as NaN in every float type and as -1 in the integer ones
GUARD = 4096  # bytes on each side of a tensor where a check looks for stray writes

#: A value and the device on which a tensor of it is needed.
Place = tuple[Value, str]


@dataclass
class Need:
    """Hold the need for memory of this spec on this device, from step `first` to step `last`."""

    spec: TensorSpec
    device: str
    first: int
    last: int


class Arena:
    """Hold the buffer of one device, and the byte ranges of it that are in use."""

    def __init__(self, tensor: Tensor, layout: Layout, used: Sequence[Tensor]) -> None:
        self.tensor, self.layout = tensor, layout
        self.used = [(t.offset, t.offset + t.nbytes) for t in used]

    def poison(self) -> None:
        """Fill everything with NaN."""
        self.tensor.write(np.full(self.tensor.shape, POISON, np.uint8).view(np.int8))

    def stray_writes(self) -> int:
        """Count the bytes outside every tensor that changed since `poison`."""
        after = self.tensor.numpy().view(np.uint8)
        outside = np.ones(after.shape, bool)
        for start, stop in self.used:
            outside[start:stop] = False
        return int(np.count_nonzero(after[outside] != POISON))


class SharedArenas:
    """Give one buffer a device to several plans, of which one runs at a time. The largest plan
    comes first, or a smaller one keeps a buffer of its own."""

    def __init__(self) -> None:
        self._held: dict[str, Tensor] = {}

    def take(self, nbytes: int, allocator: DeviceAllocator) -> Tensor:
        """Return `nbytes` of the device's buffer, a larger one where that is too small."""
        held = self._held.get(allocator.device)
        if held is None or held.nbytes < nbytes:
            held = self._held[allocator.device] = Tensor.empty((nbytes,), i8, allocator)
        return held.rows(0, nbytes)

    def clear(self) -> None:
        """Let go of the buffers."""
        self._held.clear()


@dataclass
class Memory:
    """Hold what `allocate` made: tensors by place, scratch by step number, arenas by device."""

    tensors: dict[Place, Tensor] = field(default_factory=dict)
    scratch: dict[int, Tensor] = field(default_factory=dict)
    arenas: dict[str, Arena] = field(default_factory=dict)


def find_needs(bindings: Sequence[Binding], outputs: Collection[Value], home: Mapping[Value, str],
               given: Collection[Place]) -> tuple[dict[Place, Need], dict[int, Need]]:
    """Find every value that the steps make and every copy that they need elsewhere, by place;
    scratch, by step number. `given` places have tensors already. `outputs` live to the end."""
    values: dict[Place, Need] = {}
    scratch: dict[int, Need] = {}
    asked: dict[tuple[Kernel, int], TensorSpec] = {}  # nodes that are alike share their `dims`
    for i, binding in enumerate(bindings):
        read = [v.root for v in binding.inputs.values() if v is not None and v.kind != "weight"]
        places = [(root, d) for root in read for d in (home[root], binding.device)]
        for place in [*places, *((v.root, binding.device) for v in binding.outputs.values())]:
            if place not in given:
                values.setdefault(place, Need(place[0].spec, place[1], i, i)).last = i
        if binding.kernel.workspace is not None:
            key = binding.kernel, id(binding.call.dims)
            if key not in asked:
                asked[key] = ask(binding.kernel, "workspace", binding.call)
            scratch[i] = Need(asked[key], binding.device, i, i)
    for value in outputs:
        if (value.root, home[value.root]) in values:
            values[value.root, home[value.root]].last = len(bindings)
    return values, scratch


def arena_layout(needs: Sequence[Need], guard: int = 0) -> Layout:
    """Lay the needs of one device out in one buffer."""
    return lay_out([Lifetime(n.spec.nbytes, n.first, n.last) for n in needs], guard)


def allocate(bindings: Sequence[Binding], outputs: Collection[Value], home: Mapping[Value, str],
             given: Collection[Place], allocators: Mapping[str, DeviceAllocator], guard: int,
             arenas: SharedArenas) -> Memory:
    """Allocate what `find_needs` finds. `guard` bytes around each tensor stay unused."""
    values, scratch = find_needs(bindings, outputs, home, given)
    memory = Memory()
    for device, allocator in allocators.items():
        chosen = [p for p, n in values.items() if n.device == device]
        loose = [i for i, n in scratch.items() if n.device == device]
        needs = [*(values[p] for p in chosen), *(scratch[i] for i in loose)]
        if needs:
            layout = arena_layout(needs, guard)
            whole = arenas.take(layout.peak, allocator)
            placed = [Tensor(whole.buffer, n.spec.sizes, n.spec.dtype, offset)
                      for n, offset in zip(needs, layout.offsets, strict=True)]
            memory.tensors.update(zip(chosen, placed, strict=False))
            memory.scratch.update(zip(loose, placed[len(chosen):], strict=True))
            memory.arenas[device] = Arena(whole, layout, placed)
    return memory

