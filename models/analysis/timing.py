"""Where a step's time goes: each kind of kernel timed alone, beside the bytes it must move."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from core.plan.lower import Binding
from core.plan.plan import Plan
from core.plugins.backend import Launch

_BATCHES, _BATCH_SECONDS = 5, 0.04


@dataclass(frozen=True)
class KernelTime:
    """Hold the time of one kind of kernel in a step.

    node     the nodes' name, `*` for the layer's number
    calls    how many of them a step has
    seconds  of all of these calls together, run one after the other with nothing between
    nbytes   the least that they move, by the op's `cost`; flops likewise
    """

    node: str
    op: str
    kernel: str
    calls: int
    seconds: float
    nbytes: int
    flops: int


def profile(plan: Plan) -> list[KernelTime]:
    """Time the kernels of a plan that has run before, slowest kind first; the plan's state is kept.

    A kind's calls are run alone, again and again, so they neither overlap with other kernels nor
    find their inputs in a cache, unless all of them fit there. What moves the sequence on (the
    `advance` op) is left out.
    """
    kinds: dict[tuple[str, str], list[Binding]] = {}
    for binding in timed_bindings(plan):
        kinds.setdefault((re.sub(r"\.\d+\.", ".*.", binding.node.name), binding.kernel.id),
                         []).append(binding)
    rows = []
    for (node, kernel), bindings in kinds.items():
        costs = [s.op.cost(s.call.inputs, s.call.attrs) for s in bindings]
        rows.append(KernelTime(node, bindings[0].op.name, kernel, len(bindings),
                               time_bindings(plan, bindings),
                               sum(c.nbytes for c in costs), sum(c.flops for c in costs)))
    return sorted(rows, key=lambda row: -row.seconds)


def timed_bindings(plan: Plan) -> list[Binding]:
    """Return the bindings that give the same results when they run again."""
    return [s for s in plan.bindings if not any(
        v.alias_of is not None and v.root.kind == "input" for v in s.outputs.values())]


def time_bindings(plan: Plan, bindings: list[Binding]) -> float:
    """Return the median seconds of these bindings of a plan, captured first if the plan is."""
    launches = [launch for binding in bindings for launch in binding.launches]

    def sequence() -> None:
        for launch in launches:
            launch()
    backends = [plan.policy.registry.backend(b) for b in {s.kernel.backend for s in bindings}]
    run = plan.in_any_thread(backends[0].capture(sequence) if plan.captured else sequence)

    def wait() -> None:
        for backend in backends:
            backend.allocator.synchronize()
    return _median(run, wait)


def _median(run: Launch, wait: Callable[[], None]) -> float:
    def batch(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            run()
        wait()
        return (time.perf_counter() - start) / count
    batch(2)
    count = max(1, int(_BATCH_SECONDS / max(batch(2), 1e-6)))
    return statistics.median(batch(count) for _ in range(_BATCHES))
