"""Runs one case on one kernel, with poisoned outputs and guard bytes around every tensor."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from core.conformance.cases import Case
from core.errors import KernelError, NoKernelError
from core.installed.registry import Registry
from core.ir.tolerance import Tolerance
from core.plan.arena import GUARD, POISON
from core.plugins.kernel import Kernel
from core.runtime.run_op import read_results, single_op_plan
from core.tensor.dtype import DType
from core.tensor.tensor import Array, Tensor
from core.verify.compare import Comparison, Expected, compare
from core.verify.guard import GuardedPlan
from core.verify.memory.weights import page_sums
from core.verify.values import differing, reversed_floats

FICKLE = "supports() took this call, and refused it when asked again"


@dataclass(frozen=True)
class Outcome:
    """Holds the outcome of a case on one kernel: comparisons by result, and broken rules.

    `comparisons` are by the op's tolerance and are what a report shows; `judged` are by the
    kernel's own where it declares one, and decide.
    """

    kernel: Kernel
    comparisons: dict[str, Comparison]
    judged: dict[str, Comparison]
    broken: list[str]

    @property
    def ok(self) -> bool:
        return not self.broken and all(c.ok for c in self.judged.values())

    @property
    def used(self) -> float:
        """Return the largest share of the op's budget, whatever the kernel declares."""
        return max((c.used for c in self.comparisons.values()), default=0.0)

    def __str__(self) -> str:
        lines = [f"{self.kernel.id}:", *(f"  {b}" for b in self.broken)]
        lines += [f"  `{k}` {'ok' if c.ok else 'WRONG'}: {c}" for k, c in self.judged.items()]
        if self.kernel.tolerance is not None:
            lines.append(f"  judged by its own tolerance, {self.kernel.tolerance}")
        return "\n".join(lines)


@dataclass(frozen=True)
class _Placed:
    name: str
    tensor: Tensor
    frame: Array


class Guarded:
    """Holds tensors with `GUARD` poisoned bytes before and after each.

    Weights hold their data when a kernel binds, since it may prepack them. Inputs hold poison until
    `reset`: they change from step to step, and a kernel that reads them early is wrong.
    """

    def __init__(self, registry: Registry, case: Case) -> None:
        self.allocator = registry.backend(case.backend).allocator
        self.weights, self.updated = case.op.weight_params, case.op.sig.mutated
        self.placed: list[_Placed] = []

    def __call__(self, name: str, array: Array, dtype: DType) -> Tensor:
        frame = np.full(array.nbytes + 2 * GUARD, POISON, np.uint8)
        buffer = self.allocator.allocate(frame.nbytes)
        self.allocator.copy_from_host(buffer, frame)
        tensor = Tensor(buffer, array.shape, dtype, GUARD)
        frame[GUARD:GUARD + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self.placed.append(_Placed(name, tensor, frame))
        if name in self.weights:
            self.allocator.copy_from_host(buffer, frame)
        return tensor

    def reset(self) -> None:
        """Put every tensor's data in place: the run before may have updated some."""
        for placed in self.placed:
            self.allocator.copy_from_host(placed.tensor.buffer, placed.frame)

    def reverse(self) -> None:
        """Put the inputs' floats in place in reverse, as another step would have others."""
        for placed in self.placed:
            if placed.name not in self.weights and placed.tensor.dtype.is_float:
                placed.tensor.write(np.ascontiguousarray(reversed_floats(placed.tensor.numpy())))

    def damaged(self) -> list[str]:
        """Return a sentence for each input with data that a kernel may not change and did; a plan's
        own guards watch the bytes beside it."""
        found = []
        for placed in self.placed:
            old = placed.frame[GUARD:len(placed.frame) - GUARD]
            now = placed.tensor.numpy()
            if placed.name not in self.updated and now.tobytes() != old.tobytes():
                old = old.view(now.dtype).reshape(now.shape)
                found.append(f"changed its input `{placed.name}`: {differing(now, old)}")
        return found


def run_case(case: Case, kernel: Kernel, registry: Registry,
             expected: Mapping[str, Expected], times: int = 2) -> Outcome:
    """Run `kernel` some times and hold every result to the op's tolerance. What it raises is a
    broken rule."""
    try:
        return _run_case(case, kernel, registry, expected, times)
    except KernelError as error:
        return Outcome(kernel, {}, {}, [str(error)])
    except NoKernelError as error:
        return Outcome(kernel, {}, {}, [f"{FICKLE}: {error}"])


def _run_case(case: Case, kernel: Kernel, registry: Registry,
              expected: Mapping[str, Expected], times: int) -> Outcome:
    guarded = Guarded(registry, case)
    plan = GuardedPlan(single_op_plan(
        case.op, case.arrays, case.attrs, backend=case.backend, kernel=kernel.name,
        registry=registry, guard=GUARD, place=guarded))
    runs, broken = [], []
    (binding,) = plan.plan.bindings
    packed = {k: (t, page_sums(t)) for k, t in plan.plan.packed(binding).items()}
    for run in range(-1, times):  # what the first leaves behind may change nothing of the others
        guarded.reset()
        if run < 0:
            guarded.reverse()
        for _, launch in plan.walk():
            broken += launch(True)
        if run >= 0:
            runs.append(read_results(plan.plan, case.op))
            broken += guarded.damaged()
    broken += [f"changed its prepacked weight `{k}`" for k, (tensor, sums) in packed.items()
               if not np.array_equal(page_sums(tensor), sums)]
    names = case.op.result_names
    distinct = list({tuple(None if a is None else a.tobytes() for a in run): run
                     for run in runs}.values())
    if kernel.deterministic and len(distinct) > 1:
        broken.append(f"{times} runs gave {len(distinct)} results that differ in bits, but "
                      "deterministic=False is not declared")

    def compared(tolerance: Tolerance) -> dict[str, Comparison]:
        found = {k: [compare(a, expected[k], tolerance) for run in distinct
                     for a in run[i:i + 1] if a is not None] for i, k in enumerate(names)}
        return {k: max(every, key=lambda c: (not c.ok, c.used))
                for k, every in found.items() if every}

    by_op = compared(case.op.tolerance)
    judged = by_op if kernel.tolerance is None else compared(kernel.tolerance)
    return Outcome(kernel, by_op, judged, list(dict.fromkeys(broken)))


def repeats(case: Case, kernel: Kernel, registry: Registry, runs: int) -> bool:
    """Return whether that many runs from equal inputs give equal bits."""
    guarded = Guarded(registry, case)
    plan = single_op_plan(case.op, case.arrays, case.attrs, backend=case.backend,
                          kernel=kernel.name, registry=registry, guard=GUARD, place=guarded)
    first = None
    for _ in range(runs):
        guarded.reset()
        plan.run()
        bits = [None if a is None else a.tobytes() for a in read_results(plan, case.op)]
        first = first or bits
        if bits != first:
            return False
    return True


def time_case(case: Case, kernel: Kernel, registry: Registry) -> float:
    """Measure the median seconds of one run, of at least five within 20 ms or so, by batches that
    are long enough for the clock. The first, which may compile, is left out."""
    place = Guarded(registry, case)  # a kernel that writes too far must not end the suite
    plan = single_op_plan(case.op, case.arrays, case.attrs, backend=case.backend,
                          kernel=kernel.name, registry=registry, guard=GUARD, place=place)
    place.reset()
    wait = registry.backend(case.backend).allocator.synchronize

    def batch(runs: int) -> float:
        wait()
        start = time.perf_counter()
        for _ in range(runs):
            plan.run()
        wait()
        return (time.perf_counter() - start) / runs

    batch(1)
    runs = max(1, min(1000, int(0.004 / max(batch(1), 1e-7))))
    return statistics.median(batch(runs) for _ in range(5))
