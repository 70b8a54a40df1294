"""Puts guard bytes around what a kernel may write, and says which of them it changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from weakref import WeakKeyDictionary

import numpy as np

from core.plan.arena import GUARD, POISON, Arena
from core.plan.lower import Binding
from core.plan.plan import Plan
from core.tensor.allocator import Buffer, DeviceAllocator
from core.tensor.dtype import DType
from core.tensor.tensor import Array, Tensor

_POISON = bytes([POISON]) * GUARD
_NAN = np.frombuffer(_POISON, np.uint8)
#: Runs a kernel, and returns the rules that it broke.
GuardedLaunch = Callable[[], list[str]]


def guarded_tensor(shape: Sequence[int], dtype: DType, allocator: DeviceAllocator) -> Tensor:
    """Return a tensor with guard bytes before and after it, in one allocation with them."""
    nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    buffer = allocator.allocate(nbytes + 2 * GUARD)
    allocator.copy_from_host(buffer, np.full(buffer.nbytes, POISON, np.uint8))
    return Tensor(buffer, shape, dtype, GUARD)


class Edges:
    """Holds the guard bytes of one tensor, `GUARD` on each side.

    fill  the byte that the tensor holds too before each launch, since the kernel is to write all
          of it; None leaves its contents alone
    """

    def __init__(self, name: str, tensor: Tensor, fill: int | None) -> None:
        self.name, self._buffer, self._fill = name, tensor.buffer, fill is not None
        start, stop = tensor.offset, tensor.offset + tensor.nbytes
        self.end = stop
        self._before, self._after = (start - GUARD, start), (stop, stop + GUARD)
        self._whole = np.full(self._after[1] - self._before[0] if self._fill else GUARD, POISON,
                              np.uint8)
        if fill is not None:
            self._whole[start - self._before[0]:stop - self._before[0]] = fill

    def poison(self) -> None:
        """Fill the guard bytes with NaN, and the tensor with `fill`."""
        if self._fill:
            write_bytes(self._buffer, self._before[0], self._whole)
            return
        for first, last in (self._before, self._after):
            write_bytes(self._buffer, first, _NAN[:last - first])

    def damage(self) -> list[str]:
        """Return what was written there since `poison`, as a sentence for each side; mend it."""
        found = []
        for side, (first, last) in (("before", self._before), ("beyond", self._after)):
            hit = damaged(self._buffer, first, last)
            if hit is not None:
                count = hit[1] - hit[0]
                where = (f"from {hit[0]} bytes after its end" if side == "beyond" else
                         f"from {last - first - hit[0]} bytes before its start")
                found.append(f"wrote {count} bytes {side} `{self.name}`, {where}")
                write_bytes(self._buffer, first, _NAN[:last - first])
        return found


class GuardedPlan:
    """Runs a plan that was made with `guard=GUARD`: poisons what each binding is to write and the
    bytes around it, and looks at those bytes after it ran.

    It looks also at every byte of the arenas that belongs to no tensor, for far writes.

    fill  the byte that outputs and workspaces hold before each launch
    """

    def __init__(self, plan: Plan, *, fill: int = POISON) -> None:
        self.plan = plan
        self._edges = [_edges(plan, i, binding, fill) for i, binding in enumerate(plan.bindings)]
        self._gaps = [(a.tensor.buffer, *gap) for a in plan.arenas.values() for gap in gaps_of(a)]
        for arena in plan.arenas.values():
            arena.poison()

    def walk(self) -> Iterator[tuple[Binding, GuardedLaunch]]:
        """Yield the bindings, each with a function that runs it and returns the rules broken."""
        for (binding, launch), edges in zip(self.plan.walk(), self._edges, strict=True):
            def guarded(launch: Callable[[], None] = launch, edges: list[Edges] = edges,
                        ) -> list[str]:
                for edge in edges:
                    edge.poison()
                launch()
                said = [text for edge in edges for text in edge.damage()]
                return said or self._strays(edges)
            yield binding, guarded

    def _strays(self, edges: list[Edges]) -> list[str]:
        found = []
        for buffer, first, last in self._gaps:
            hit = damaged(buffer, first, last)
            if hit is not None:
                write_bytes(buffer, first, np.full(last - first, POISON, np.uint8))
                found.append(f"wrote {hit[1] - hit[0]} bytes that belong to no tensor, at byte "
                             f"{hit[0] + first} of the activations"
                             + "".join(f"; `{e.name}` ends at byte {e.end}" for e in edges))
        return found


def gaps_of(arena: Arena) -> list[tuple[int, int]]:
    """Return the byte ranges of an arena that no tensor ever has."""
    found, start = [], 0
    for first, last in [*sorted(arena.used), (arena.tensor.nbytes,) * 2]:
        if first > start:
            found.append((start, first))
        start = max(start, last)
    return found


def damaged(buffer: Buffer, first: int, last: int) -> tuple[int, int] | None:
    """Return the range within these bytes, from the first to the last, that holds no poison."""
    found = read_bytes(buffer, first, last)
    if found.tobytes() == (_POISON[:last - first] if last - first <= GUARD else
                           bytes([POISON]) * (last - first)):
        return None
    at = np.flatnonzero(found != POISON)
    return int(at[0]), int(at[-1]) + 1


def read_bytes(buffer: Buffer, first: int, last: int) -> Array:
    """Return these bytes of a buffer, wherever it is: a view where the host can read them."""
    host = buffer.allocator.host_view(buffer)
    if host is not None:
        return host[first:last]
    copy = np.empty(last - first, np.uint8)
    buffer.allocator.copy_to_host(buffer, copy, first)
    return copy


def write_bytes(buffer: Buffer, first: int, array: Array) -> None:
    """Write bytes into a buffer, wherever it is."""
    buffer.allocator.copy_from_host(buffer, array, first)


def _edges(plan: Plan, number: int, binding: Binding, fill: int) -> list[Edges]:
    new = {p.name for p in binding.op.sig.outputs}
    ours = {a.tensor.buffer for a in plan.arenas.values()}
    found = [Edges(k, t, fill if k in new else None) for k, t in binding.results.items()
             if t.buffer in ours or _has_guard(t)]
    if number in plan.scratch:
        found.append(Edges("workspace", plan.scratch[number], fill))
    return found


class Twins:
    """Runs plans of a session in twins of theirs: the same kernels over the same inputs, states and
    weights, but with guard bytes around their activations."""

    def __init__(self) -> None:
        self._kept: WeakKeyDictionary[Plan, GuardedPlan] = WeakKeyDictionary()

    def of(self, plan: Plan) -> GuardedPlan:
        """Return the twin of a plan, made when first asked for."""
        if plan not in self._kept:
            tensors = {v.name: plan.tensor(v) for kind in ("input", "state")
                       for v in plan.graph.roots(kind)}
            self._kept[plan] = GuardedPlan(Plan(plan.graph, plan.policy, plan.weights, tensors,
                                                guard=GUARD))
        return self._kept[plan]

    def hand_over(self, plan: Plan) -> None:
        """Put the outputs of the twin's last run where the plan's own are."""
        twin = self._kept[plan].plan
        for name in plan.graph.outputs:
            source, target = twin.output(name), plan.output(name)
            if source.buffer is not target.buffer:
                target.write(np.ascontiguousarray(source.numpy()))


def _has_guard(tensor: Tensor) -> bool:
    """Return True for a tensor with a buffer of its own that has guard bytes, such as a KV cache;
    inputs of a step lie beside each other in one."""
    return tensor.offset == GUARD and tensor.buffer.nbytes == tensor.nbytes + 2 * GUARD
