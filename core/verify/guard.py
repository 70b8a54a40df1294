"""Puts guard bytes around what a kernel may write, and says which of them it changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from weakref import WeakKeyDictionary

import numpy as np

from core.errors import KernelError
from core.failures import changed_modes, modes, who
from core.plan.arena import GUARD, POISON
from core.plan.liveness import FAR
from core.plan.lower import Binding
from core.plan.plan import Plan
from core.tensor.allocator import Buffer, DeviceAllocator
from core.tensor.dtype import DType
from core.tensor.tensor import Array, Tensor
from core.verify.memory.buffers import gaps, read_bytes, write_bytes

REACH = 8 * GUARD  # bytes on each side of a result where a write into others' memory is looked for
_POISON = bytes([POISON]) * REACH
_NAN = np.frombuffer(_POISON, np.uint8)
#: Runs a kernel, and returns the rules that it broke. Given True, it looks at all it can.
GuardedLaunch = Callable[..., list[str]]


def guarded_tensor(shape: Sequence[int], dtype: DType, allocator: DeviceAllocator) -> Tensor:
    """Return a tensor with guard bytes before and after it, in one allocation with them."""
    nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    buffer = allocator.allocate(nbytes + 2 * GUARD)
    allocator.copy_from_host(buffer, np.full(buffer.nbytes, POISON, np.uint8))
    return Tensor(buffer, shape, dtype, GUARD)


class Edges:
    """Holds the guard bytes of one tensor, `GUARD` on each side.

    fill     the byte that the tensor holds too before each launch, since the kernel is to write all
             of it; None leaves its contents alone
    written  the kernel may write the tensor; the others' guards are looked at on request
    """

    def __init__(self, name: str, tensor: Tensor, fill: int | None, *, written: bool = True,
                 ) -> None:
        self.name, self._fill, self.written = name, fill is not None, written
        start, stop = tensor.offset, tensor.offset + tensor.nbytes
        self.start, self.end, self.buffer = start, stop, tensor.buffer
        self._before, self._after = (start - GUARD, start), (stop, stop + GUARD)
        self._whole = np.full(self._after[1] - self._before[0] if self._fill else GUARD, POISON,
                              np.uint8)
        if fill is not None:
            self._whole[start - self._before[0]:stop - self._before[0]] = fill

    def poison(self) -> None:
        """Fill the guard bytes with NaN, and the tensor with `fill`."""
        if self._fill:
            write_bytes(self.buffer, self._before[0], self._whole)
            return
        for first, last in (self._before, self._after):
            write_bytes(self.buffer, first, _NAN[:last - first])

    def damage(self) -> list[str]:
        """Return what was written there since `poison`, as a sentence for each side; mend it."""
        found = []
        for side, (first, last) in (("before", self._before), ("beyond", self._after)):
            hit = damaged(self.buffer, first, last)
            if hit is not None:
                count = hit[1] - hit[0]
                where = (f"from {hit[0]} bytes after its end" if side == "beyond" else
                         f"from {last - first - hit[0]} bytes before its start")
                found.append(f"wrote {count} bytes {side} `{self.name}`, {where}")
                write_bytes(self.buffer, first, _NAN[:last - first])
        return found


class GuardedPlan:
    """Runs a plan that was made with `guard=GUARD`: poisons what each binding is to write and the
    bytes around it, and looks at those bytes after it ran.

    For far writes it looks also at what lies between the tensors of the arenas and belongs to none.
    On request, which costs more, it looks at all memory within `REACH` of the outputs, at guards of
    inputs, and at the modes of arithmetic.

    fill  the byte that outputs and workspaces hold before each launch
    """

    def __init__(self, plan: Plan, *, fill: int = POISON) -> None:
        self.plan = plan
        self._edges = [_edges(plan, i, binding, fill) for i, binding in enumerate(plan.bindings)]
        self._gaps = [(a.tensor.buffer, *gap) for a in plan.arenas.values()
                      for gap in gaps(a.used, FAR * GUARD, a.tensor.nbytes - FAR * GUARD)]
        self._near = [_near(plan, *of) for of in zip(plan.bindings, self._edges, strict=True)]
        for arena in plan.arenas.values():
            arena.poison()

    def walk(self) -> Iterator[tuple[Binding, GuardedLaunch]]:
        """Yield the bindings, each with a function that runs it and returns the rules broken."""
        for number, (binding, launch) in enumerate(self.plan.walk()):
            def guarded(whole: bool = False, *, launch: Callable[[], object] = launch,
                        number: int = number) -> list[str]:
                edges = [e for e in self._edges[number] if whole or e.written]
                for edge in edges:
                    edge.poison()
                near = [(buffer, first, np.array(read_bytes(buffer, first, last)))
                        for buffer, first, last in self._near[number] if whole]
                before = modes() if whole else {}
                launch()
                said = [text for edge in edges for text in edge.damage()]
                return [*(said or self._strays(edges)), *_restored(near, edges),
                        *(changed_modes(before) if whole else ())]
            yield binding, guarded

    def _strays(self, edges: list[Edges]) -> list[str]:
        found = []
        for buffer, first, last in self._gaps:
            hit = damaged(buffer, first, last)
            if hit is not None:
                write_bytes(buffer, first, np.full(last - first, POISON, np.uint8))
                found.append(f"wrote {hit[1] - hit[0]} bytes that belong to no tensor, "
                             + _place(hit[0] + first, hit[1] + first, edges))
        return found


def _near(plan: Plan, binding: Binding, edges: Sequence[Edges]) -> list[tuple[Buffer, int, int]]:
    """Return the bytes of the arenas that lie within `REACH` of what a binding writes, and belong
    to neither it nor its inputs, as (buffer, first, last)."""
    own = [(t.buffer, t.offset, t.offset + t.nbytes) for t in binding.arguments.values()]
    own += [(e.buffer, e.start - GUARD, e.end + GUARD) for e in edges]
    found: list[tuple[Buffer, int, int]] = []
    for arena in plan.arenas.values():
        buffer = arena.tensor.buffer
        taken = [part[1:] for part in own if part[0] is buffer]
        for edge in (e for e in edges if e.buffer is buffer):
            zone = max(0, edge.start - REACH), min(arena.tensor.nbytes, edge.end + REACH)
            found += [(buffer, *gap) for gap in gaps(taken, *zone)]
            taken.append(zone)
    return found


def _restored(near: Sequence[tuple[Buffer, int, Array]], edges: Sequence[Edges]) -> list[str]:
    """Return a sentence for each range that has changed since it was read, and put it back."""
    found = []
    for buffer, first, old in near:
        at = np.flatnonzero(read_bytes(buffer, first, first + len(old)) != old)
        if len(at):
            write_bytes(buffer, first, old)
            start, stop = int(at[0]) + first, int(at[-1]) + 1 + first
            whose = ("that belong to no tensor" if (old[at] == POISON).all() else
                     "into other tensors")
            found.append(f"wrote {stop - start} bytes {whose}, " + _place(start, stop, edges))
    return found


def _place(start: int, stop: int, edges: Sequence[Edges]) -> str:
    """Say how far from the nearest of a binding's own tensors these bytes lie."""
    far = [(start - e.end, f"from {start - e.end} bytes after the end of `{e.name}`")
           if start >= e.end else
           (e.start - stop, f"from {e.start - start} bytes before the start of `{e.name}`")
           for e in edges]
    return min(far)[1]


def damaged(buffer: Buffer, first: int, last: int) -> tuple[int, int] | None:
    """Return the range within these bytes, from the first to the last, that holds no poison."""
    found = read_bytes(buffer, first, last)
    if found.tobytes() == (_POISON[:last - first] if last - first <= REACH else
                           bytes([POISON]) * (last - first)):
        return None
    at = np.flatnonzero(found != POISON)
    return int(at[0]), int(at[-1]) + 1


def _edges(plan: Plan, number: int, binding: Binding, fill: int) -> list[Edges]:
    new = {p.name for p in binding.op.sig.outputs}
    ours = {a.tensor.buffer for a in plan.arenas.values()}
    found = [Edges(k, t, fill if k in new else None) for k, t in binding.results.items()
             if t.buffer in ours or _has_guard(t)]
    given = {**binding.arguments, **{k: plan.weights.held(name, binding.device)
                                     for k, name in binding.weight_names.items()}}
    found += [Edges(k, t, None, written=False) for k, t in given.items()
              if t is not None and _has_guard(t) and t.buffer not in {e.buffer for e in found}]
    if number in plan.scratch:
        found.append(Edges("workspace", plan.scratch[number], fill))
    return found


class Twins:
    """Runs plans of a session in twins of theirs: the same kernels over the same inputs, states and
    weights, but with guard bytes around their activations."""

    def __init__(self) -> None:
        self._kept: WeakKeyDictionary[Plan, GuardedPlan] = WeakKeyDictionary()

    def of(self, plan: Plan) -> GuardedPlan:
        """Return the twin of a plan, made when first asked for. Raises KernelError where a
        kernel's `supports` has changed its mind."""
        if plan not in self._kept:
            tensors = {v.name: plan.tensor(v) for kind in ("input", "state")
                       for v in plan.graph.roots(kind)}
            twin = Plan(plan.graph, plan.policy, plan.weights, tensors, guard=GUARD)
            for one, other in ((plan, twin), (twin, plan)):
                others = {(b.node.name, b.op): b for b in other.bindings}
                for b in one.bindings:
                    instead = others.get((b.node.name, b.op), b)
                    if instead.kernel.id != b.kernel.id and b.kernel.id in dict(instead.refused):
                        raise KernelError(
                            f"{who(b.kernel, b.call)}: supports() takes this call, and refused it "
                            "another time; it depends on more than the call")
            self._kept[plan] = GuardedPlan(twin)
        return self._kept[plan]

    def walk(self, plan: Plan) -> Iterator[tuple[Binding, GuardedLaunch]]:
        """Run a plan in its twin as `GuardedPlan.walk` does; its own outputs follow."""
        yield from self.of(plan).walk()
        self.hand_over(plan)

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
