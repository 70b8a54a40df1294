"""Plan: bind a graph to kernels once, so that a step is a list of calls with nothing to decide."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from core.backend import Backend, Call, Kernel, Launch
from core.dtype import i8
from core.errors import BackendError
from core.fused import FusedOp
from core.graph import Graph, Node, Value
from core.ledger import Ledger, LedgerEntry
from core.match import Match, find_matches
from core.memory import Layout, Lifetime, lay_out
from core.op import OPS, Op
from core.select import Refusals, Selector
from core.tensor import Array, Tensor, TensorSpec
from core.weights import WeightStore

POISON = 0xFF  # a byte that reads as NaN in every float type and as -1 in the integer ones


@dataclass
class Step:
    """One kernel bound to the tensors of its node, or of the nodes that it fuses."""

    node: Node
    op: Op
    call: Call
    kernel: Kernel
    refused: Refusals
    inputs: dict[str, Value | None]
    outputs: dict[str, Value]
    covers: tuple[Node, ...]
    arguments: dict[str, Tensor] = field(default_factory=dict)
    results: dict[str, Tensor] = field(default_factory=dict)
    launches: list[Launch] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass
class Arena:
    """The activations of one device: a buffer, and the byte ranges of it in use."""

    tensor: Tensor
    layout: Layout
    used: list[tuple[int, int]]


class Plan:
    """A graph with numbers for dimensions, ready to run.

    tensors     the graph's inputs and states by name, on the first backend's device
    guard       bytes left unused around each activation, for tests that look for stray writes
    """

    def __init__(self, graph: Graph, selector: Selector, weights: WeightStore,
                 tensors: Mapping[str, Tensor], *, fusion: bool = True, guard: int = 0) -> None:
        self.graph = graph
        self.selector = selector
        self.weights = weights
        self.backends: list[Backend] = [selector.registry.backend(b) for b in selector.backends]
        self._home = {v.root: self.backends[0].allocator.device
                      for kind in ("input", "state") for v in graph.roots(kind)}
        self._updated = {v.root for n in graph.nodes for v in n.outputs.values()
                         if v.alias_of is not None}
        self.steps = self._choose(fusion)
        self._tensors: dict[tuple[Value, str], Tensor] = {
            (v, self._home[v]): tensors[v.name]
            for kind in ("input", "state") for v in graph.roots(kind)}
        self.arenas = self._allocate(guard)
        self._bind()
        self._launches: list[Launch] = [launch for step in self.steps for launch in step.launches]
        self._run: Launch = self._sequence
        used = {s.kernel.backend for s in self.steps}
        if len(used) == 1 and len(self.arenas) <= 1:
            self._run = selector.registry.backend(used.pop()).capture(self._sequence)

    # running

    def run(self) -> None:
        """Compute every output from the current inputs. No checks, no allocation, no decisions."""
        self._run()

    def _sequence(self) -> None:
        for launch in self._launches:
            launch()

    def walk(self) -> Iterator[tuple[Step, Callable[[], None]]]:
        """The steps one by one, each with a function that runs it: for checking and profiling."""
        for step in self.steps:
            def launch(launches: list[Launch] = step.launches) -> None:
                for run in launches:
                    run()
            yield step, launch

    def read(self, step: Step, name: str) -> Array | None:
        """A copy of a step's input: of a weight as the checkpoint holds it, None if absent."""
        value = step.inputs[name]
        if value is None:
            return None
        if value.kind == "weight":
            return self.weights.arrays[value.root.name].reshape(_ints(value.spec.shape))
        return np.array(step.arguments[name].numpy())

    def output(self, name: str) -> Tensor:
        """Where the named output is after a run."""
        return self.tensor(self.graph.outputs[name])

    def tensor(self, value: Value, device: str | None = None) -> Tensor:
        """The tensor of a value, on its own device unless another is named."""
        root = value.root
        shape = [d for d in value.spec.shape if isinstance(d, int)]
        stored = self._tensors[root, device or self._home[root]]
        return stored if list(stored.shape) == shape else stored.view(*shape)

    @property
    def ledger(self) -> Ledger:
        entries = []
        for s in self.steps:
            tokens = int(s.call.dims.get("T", s.call.dims.get("S", 1)))
            entries.append(LedgerEntry(
                s.node.name, s.op.name, s.call.phase, tokens, s.kernel.id,
                self.selector.registry.sources[s.kernel], tuple(n.name for n in s.covers),
                tuple(s.refused), "; ".join(s.notes)))
        return Ledger(tuple(entries))

    @property
    def activation_bytes(self) -> tuple[int, int]:
        """(bytes of the arenas, bytes that separate buffers would take)."""
        return (sum(a.layout.peak for a in self.arenas.values()),
                sum(a.layout.total for a in self.arenas.values()))

    # choosing

    def _choose(self, fusion: bool) -> list[Step]:
        fused: dict[Node, Step] = {}  # last covered node -> its step
        claimed: set[Node] = set()
        for op in (self._fused_ops() if fusion else []):
            for match in find_matches(op, self.graph):
                step = self._claim(op, match, claimed)
                if step is not None:
                    claimed.update(match.nodes)
                    fused[step.node] = step
        steps = []
        for node in self.graph.nodes:
            if node in fused:
                step = fused[node]
            elif node in claimed:
                continue
            else:
                call = _call(node.op, node.inputs, node.attrs)
                kernel, refused = self.selector.choose(
                    call, node.name, partial(self._misplaced, inputs=node.inputs))
                if kernel is None:
                    raise self.selector.no_kernel(call, node.name, refused)
                step = Step(node, node.op, call, kernel, refused, node.inputs, node.outputs,
                            (node,))
            device = self._device(step.kernel)
            for value in step.outputs.values():
                self._home.setdefault(value.root, device)
            steps.append(step)
        return steps

    def _fused_ops(self) -> list[FusedOp]:
        """Fused ops that the first backend offers, larger patterns first, then by name."""
        first = self.selector.backends[0]
        overridden = {o.op for o in self.selector.overrides}
        ops = [op for op in OPS.values() if isinstance(op, FusedOp)
               and (self.selector.registry.kernels(first, op.name) or op.name in overridden)]
        return sorted(ops, key=lambda op: (-len(op.pattern().nodes), op.name))

    def _claim(self, op: FusedOp, match: Match, claimed: set[Node]) -> Step | None:
        if any(n in claimed or self.selector.override(n.op.name, n.name) for n in match.nodes):
            return None  # an override on a covered node means that node, not a fusion of it
        call = _call(op, match.inputs, match.attrs)
        last = max(match.nodes, key=self.graph.nodes.index)
        first_backend = Selector(self.selector.registry, self.selector.backends[:1],
                                 self.selector.overrides)
        kernel, refused = first_backend.choose(call, last.name,
                                               lambda k: self._misplaced(k, match.inputs))
        if kernel is None:
            return None
        covers = tuple(sorted(match.nodes, key=self.graph.nodes.index))
        return Step(last, op, call, kernel, refused, match.inputs, match.outputs, covers)

    def _misplaced(self, kernel: Kernel, inputs: Mapping[str, Value | None]) -> str | None:
        device, kernel_updates = self._device(kernel), OPS[kernel.op].sig.mutated
        for name, value in inputs.items():
            if value is None:
                continue
            home = self._home.get(value.root, device)
            kept = value.kind == "state" or name in kernel_updates
            if kept and home != device:
                return f"`{name}` is kept on {home} between steps, this kernel runs on {device}"
            if kernel.prepare is not None and value.kind == "weight" and value.is_view:
                return f"`{name}` is a view of a weight, and prepare takes whole weights"
        return None

    def _device(self, kernel: Kernel) -> str:
        return self.selector.registry.backend(kernel.backend).allocator.device

    # laying out and binding

    def _allocate(self, guard: int) -> dict[str, Arena]:
        """One arena a device, laid out by liveness; records the tensor of every activation."""
        needs: dict[tuple[Value, str], tuple[TensorSpec, int, int]] = {}
        scratch: dict[int, tuple[TensorSpec, str]] = {}
        end = len(self.steps)
        for i, step in enumerate(self.steps):
            device = self._device(step.kernel)
            for value in step.inputs.values():
                if value is None or value.kind == "weight":
                    continue
                root = value.root
                for place in dict.fromkeys((self._home[root], device)):
                    if (root, place) in self._tensors:
                        continue
                    spec, first, _ = needs.get((root, place), (root.spec, i, i))
                    needs[root, place] = (spec, first, i)
            for value in step.outputs.values():
                if (value.root, device) not in self._tensors:
                    needs.setdefault((value.root, device), (value.root.spec, i, i))
            if step.kernel.workspace is not None:
                scratch[i] = (step.kernel.workspace(step.call), device)
        for value in self.graph.outputs.values():
            if (value.root, self._home[value.root]) in needs:
                spec, first, _ = needs[value.root, self._home[value.root]]
                needs[value.root, self._home[value.root]] = (spec, first, end)
        arenas: dict[str, Arena] = {}
        self._scratch: dict[int, Tensor] = {}
        for device in dict.fromkeys([d for _, d in needs] + [d for _, d in scratch.values()]):
            keys = [k for k in needs if k[1] == device]
            loose = [i for i, (_, d) in scratch.items() if d == device]
            lives = [Lifetime(needs[k][0].nbytes, *needs[k][1:]) for k in keys]
            lives += [Lifetime(scratch[i][0].nbytes, i, i) for i in loose]
            layout = lay_out(lives, guard)
            allocator = next(b for b in map(self.selector.registry.backend, self._used_backends())
                             if b.allocator.device == device).allocator
            memory = Tensor.empty((layout.peak,), i8, allocator)
            places = [Tensor(memory.buffer, _ints(s.shape), s.dtype, o) for s, o in zip(
                [*(needs[k][0] for k in keys), *(scratch[i][0] for i in loose)], layout.offsets,
                strict=True)]
            self._tensors.update(zip(keys, places, strict=False))
            self._scratch.update(zip(loose, places[len(keys):], strict=True))
            used = [(t.offset, t.offset + t.nbytes) for t in places]
            arenas[device] = Arena(memory, layout, used)
        return arenas

    def _used_backends(self) -> list[str]:
        used = (s.kernel.backend for s in self.steps)
        return list(dict.fromkeys([*self.selector.backends, *used]))

    def _bind(self) -> None:
        copied: set[tuple[Value, str]] = set()
        for i, step in enumerate(self.steps):
            backend = self.selector.registry.backend(step.kernel.backend)
            device = backend.allocator.device
            native: dict[str, Any] = {}
            weights = {k: v.name for k, v in step.inputs.items()
                       if v is not None and v.kind == "weight" and not v.is_view}
            if step.kernel.prepare is not None and weights:
                native.update(self.weights.prepared(step.kernel, backend, weights))
            for name, value in step.inputs.items():
                if value is None:
                    native[name] = None
                elif value.kind == "weight":
                    if name not in native:  # else prepare has replaced it
                        whole = self.weights.tensor(value.root.name, backend.allocator)
                        native[name] = backend.native(whole.view(*_ints(value.spec.shape)))
                else:
                    home = self._home[value.root]
                    fresh = value.root in self._updated or (value.root, device) not in copied
                    if home != device and fresh:
                        copied.add((value.root, device))
                        step.launches.append(_copier(self.tensor(value.root), self.tensor(
                            value.root, device)))
                        step.notes.append(f"copies `{name}` from {home} to {device}")
                    step.arguments[name] = self.tensor(value, device)
                    native[name] = backend.native(step.arguments[name])
            for name, value in step.outputs.items():
                step.results[name] = self.tensor(value, device)
            outs = [backend.native(step.results[p.name]) for p in step.op.sig.outputs]
            keywords = {k: v for k, v in step.call.attrs.items()
                        if not step.op.attributes[k].structural}
            if i in self._scratch:
                keywords["workspace"] = backend.native(self._scratch[i])
            positional = [native[p.name] for p in step.op.sig.params]
            step.launches.append(step.kernel.bind(*positional, *outs, **keywords))

    # checking (never on the token path)

    def poison(self) -> None:
        """Fill every activation and the space around it with NaN."""
        for arena in self.arenas.values():
            arena.tensor.write(np.full(arena.tensor.shape, POISON, np.uint8).view(np.int8))

    def stray_writes(self) -> int:
        """Bytes outside every activation that changed since `poison`."""
        count = 0
        for arena in self.arenas.values():
            after = arena.tensor.numpy().view(np.uint8)
            outside = np.ones(after.shape, bool)
            for start, stop in arena.used:
                outside[start:stop] = False
            count += int(np.count_nonzero(after[outside] != POISON))
        return count


def _call(op: Op, inputs: Mapping[str, Value | None], attrs: Mapping[str, Any]) -> Call:
    specs = {k: v.spec if v is not None else None for k, v in inputs.items()}
    env = op.bind(specs, attrs)
    unbound = [k for k, d in env.dims.items() if not isinstance(d, int)]
    if unbound:
        raise BackendError(f"{op.name}: dimensions {unbound} are still names; bind the graph first")
    return Call(op, specs, dict(attrs), {k: d for k, d in env.dims.items() if isinstance(d, int)},
                env.dtypes)


def _copier(source: Tensor, target: Tensor) -> Launch:
    def copy() -> None:
        target.write(np.ascontiguousarray(source.numpy()))
    return copy


def _ints(shape: tuple[int | str, ...]) -> list[int]:
    return [d for d in shape if isinstance(d, int)]
