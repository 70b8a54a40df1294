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
from core.tensor.allocator import DeviceAllocator
from core.tensor.dtype import DType
from core.tensor.tensor import Array, Tensor
from core.verify.memory.before import Site
from core.verify.memory.buffers import Span, Spans, gaps

REACH = 8 * GUARD  # bytes on each side of a result where a write into others' memory is looked for


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
        self.name, self.fill, self.written = name, fill, written
        start, stop = tensor.offset, tensor.offset + tensor.nbytes
        self.start, self.end, self.buffer = start, stop, tensor.buffer
        self._before = Span(self.buffer, start - GUARD, start)
        self._after = Span(self.buffer, stop, stop + GUARD)
        self.sides = self._before, self._after
        self._inner = Span(self.buffer, start, stop)
        self._whole = Span(self.buffer, start - GUARD, stop + GUARD)

    def poison(self) -> None:
        """Fill the guard bytes with NaN, and the tensor with `fill`."""
        if self.fill is None:
            self._before.fill()
            self._after.fill()
            return
        self._whole.fill()
        if self.fill != POISON:
            self._inner.fill(self.fill)

    def damage(self) -> list[str]:
        """Return what was written there since `poison`, as a sentence for each side; mend it."""
        found = []
        if (hit := self._before.damage()) is not None:
            found.append(f"wrote {hit[1] - hit[0]} bytes before `{self.name}`, from "
                         f"{GUARD - hit[0]} bytes before its start")
        if (hit := self._after.damage()) is not None:
            found.append(f"wrote {hit[1] - hit[0]} bytes beyond `{self.name}`, from {hit[0]} bytes "
                         "after its end")
        return found


class GuardedLaunch:
    """Runs one binding: poisons what it is to write and the bytes around it, and looks at those
    bytes after it ran.

    site  what a check reads of the binding
    gaps  what lies between the tensors of the arenas and belongs to none
    near  memory of others, within `REACH` of its outputs
    """

    def __init__(self, site: Site, launch: Callable[[], object], edges: Sequence[Edges],
                 gaps: Sequence[Span], near: Sequence[Span]) -> None:
        self.site = site
        self._launch, self._edges, self._gaps, self._near = launch, edges, gaps, near
        self._written = [e for e in edges if e.written]
        self._quick = Spans([*(side for e in self._written for side in e.sides), *gaps])

    def __call__(self, whole: bool = False) -> list[str]:
        """Run the binding, and return a sentence for each rule that it broke.

        whole  look also at `near`, at guards of inputs, and at the modes of arithmetic; costs more
        """
        edges = self._edges if whole else self._written
        for edge in edges:
            edge.poison()
        near = [(span, np.array(span.read())) for span in self._near] if whole else []
        before = modes() if whole else {}
        self._launch()
        if not whole and self._quick.intact():
            return []
        said = [text for edge in edges for text in edge.damage()]
        return [*(said or self._strays(edges)), *_restored(near, edges),
                *(changed_modes(before) if whole else ())]

    def _strays(self, edges: Sequence[Edges]) -> list[str]:
        return [f"wrote {hit[1] - hit[0]} bytes that belong to no tensor, "
                + _place(hit[0] + gap.first, hit[1] + gap.first, edges)
                for gap in self._gaps if (hit := gap.damage()) is not None]


class GuardedPlan:
    """Runs a plan that was made with `guard=GUARD`, each binding as a `GuardedLaunch`.

    fill  the byte that outputs and workspaces hold before each launch
    """

    def __init__(self, plan: Plan, *, fill: int = POISON) -> None:
        self.plan = plan
        between = [Span(a.tensor.buffer, *gap) for a in plan.arenas.values()
                   for gap in gaps(a.used, FAR * GUARD, a.tensor.nbytes - FAR * GUARD)]
        self._walk = []
        for number, (binding, launch) in enumerate(plan.walk()):
            edges = _edges(plan, number, binding, fill)
            self._walk.append((binding, GuardedLaunch(
                Site(plan, binding), launch, edges, between, _near(plan, binding, edges))))
        for arena in plan.arenas.values():
            arena.poison()

    def walk(self) -> Iterator[tuple[Binding, GuardedLaunch]]:
        """Yield the bindings, each with a function that runs it and returns the rules broken."""
        yield from self._walk


def _near(plan: Plan, binding: Binding, edges: Sequence[Edges]) -> list[Span]:
    """Return the bytes of the arenas that lie within `REACH` of what a binding writes, and belong
    to neither it nor its inputs."""
    own = [(t.buffer, t.offset, t.offset + t.nbytes) for t in binding.arguments.values()]
    own += [(e.buffer, e.start - GUARD, e.end + GUARD) for e in edges]
    found: list[Span] = []
    for arena in plan.arenas.values():
        buffer = arena.tensor.buffer
        taken = [part[1:] for part in own if part[0] is buffer]
        for edge in (e for e in edges if e.buffer is buffer):
            zone = max(0, edge.start - REACH), min(arena.tensor.nbytes, edge.end + REACH)
            found += [Span(buffer, *gap) for gap in gaps(taken, *zone)]
            taken.append(zone)
    return found


def _restored(near: Sequence[tuple[Span, Array]], edges: Sequence[Edges]) -> list[str]:
    """Return a sentence for each range that has changed since it was read, and put it back."""
    found = []
    for span, old in near:
        at = np.flatnonzero(span.read() != old)
        if len(at):
            span.write(old)
            start, stop = int(at[0]) + span.first, int(at[-1]) + 1 + span.first
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
