"""Running one case on one kernel, with poisoned outputs and guard bytes around every tensor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.arena import POISON
from core.backend import Kernel
from core.compare import Comparison, compare
from core.conformance.cases import Case
from core.dispatch import read_results, run_reference, single_op_plan
from core.dtype import DType
from core.registry import Registry
from core.tensor import Array, Tensor

GUARD = 256  # bytes on each side of every tensor


@dataclass(frozen=True)
class Outcome:
    """What became of a case on one kernel: comparisons by result, and broken rules."""

    kernel: Kernel
    comparisons: dict[str, Comparison]
    broken: list[str]

    @property
    def ok(self) -> bool:
        return not self.broken and all(c.ok for c in self.comparisons.values())

    @property
    def used(self) -> float:
        return max((c.used for c in self.comparisons.values()), default=0.0)

    def __str__(self) -> str:
        lines = [f"{self.kernel.id}:", *(f"  {b}" for b in self.broken)]
        return "\n".join(lines + [f"  `{k}` {'ok' if c.ok else 'WRONG'}: {c}"
                                  for k, c in self.comparisons.items()])


class Guarded:
    """Input tensors with `GUARD` poisoned bytes before and after each."""

    def __init__(self, registry: Registry, backend: str) -> None:
        self.allocator = registry.backend(backend).allocator
        self.placed: list[tuple[Tensor, Array, Array]] = []

    def __call__(self, array: Array, dtype: DType) -> Tensor:
        frame = np.full(array.nbytes + 2 * GUARD, POISON, np.uint8)
        frame[GUARD:GUARD + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        buffer = self.allocator.allocate(frame.nbytes)
        tensor = Tensor(buffer, array.shape, dtype, GUARD)
        self.placed.append((tensor, frame, array))
        self._fill(tensor, frame)
        return tensor

    def _fill(self, tensor: Tensor, frame: Array) -> None:
        self.allocator.copy_from_host(tensor.buffer, frame)

    def reset(self) -> None:
        """Restore every input, as the first run may have updated some in place."""
        for tensor, frame, _ in self.placed:
            self._fill(tensor, frame)

    def damaged(self, updated: set[int]) -> bool:
        """Whether a guard byte, or an input that should not change, did change."""
        for i, (tensor, frame, array) in enumerate(self.placed):
            now = np.empty_like(frame)
            self.allocator.copy_to_host(tensor.buffer, now)
            if i in updated:
                now[GUARD:GUARD + array.nbytes] = frame[GUARD:GUARD + array.nbytes]
            if not np.array_equal(now, frame):
                return True
        return False


def references(case: Case) -> tuple[dict[str, Array], dict[str, Array], dict[str, DType]]:
    """(float64 results, float32 results, dtype of each) of a case."""
    with np.errstate(all="ignore"):
        exact, stored = run_reference(case.op, case.arrays, case.attrs)
        same, _ = run_reference(case.op, case.arrays, case.attrs, np.float32)
    names = case.op.result_names
    return ({k: a for k, a in zip(names, exact, strict=True) if a is not None},
            {k: a for k, a in zip(names, same, strict=True) if a is not None}, stored)


def run_case(case: Case, kernel: Kernel, registry: Registry,
             expected: tuple[dict[str, Array], dict[str, Array], dict[str, DType]]) -> Outcome:
    """Run `kernel` twice and hold every result to the op's tolerance."""
    guarded = Guarded(registry, case.backend)
    plan = single_op_plan(case.op, case.arrays, case.attrs, backend=case.backend,
                          kernel=kernel.name, registry=registry, guard=GUARD, place=guarded)
    inputs = [p.name for p in case.op.sig.params if case.arrays[p.name] is not None
              and p.name not in case.op.weight_params]
    updated = {i for i, name in enumerate(inputs) if name in case.op.sig.mutated}
    runs, broken = [], []
    for _ in range(2):
        guarded.reset()
        for arena in plan.arenas.values():
            arena.poison()
        plan.run()
        runs.append(read_results(plan))
        stray = sum(arena.stray_writes() for arena in plan.arenas.values())
        if stray:
            broken.append(f"wrote {stray} bytes outside of its outputs and workspace")
        if guarded.damaged(updated):
            broken.append("changed an input that it may not change, or bytes next to one")
    names = case.op.result_names
    if kernel.deterministic and not all(
            a is None or b is None or a.tobytes() == b.tobytes()
            for a, b in zip(*runs, strict=True)):
        broken.append("two runs differ in bits, but deterministic=False is not declared")
    exact, same, stored = expected
    comparisons = {k: compare(a, exact[k], same[k], stored[k], case.op.tolerance)
                   for k, a in zip(names, runs[0], strict=True) if a is not None}
    return Outcome(kernel, comparisons, list(dict.fromkeys(broken)))
