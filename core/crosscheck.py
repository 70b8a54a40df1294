"""Observers that check every kernel while a real model runs, from the same inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from core.chooser import Step
from core.compare import Comparison, Expected, Tolerance, compare
from core.dispatch import expectations, run_kernel
from core.errors import CheckError, NoKernelError
from core.plan import Plan
from core.registry import Registry
from core.tensor import Array

REFERENCE = "reference"


@dataclass
class CheckRow:
    """The worst outcome of one (op, kernel) against one opinion."""

    op: str
    kernel: str
    against: str
    calls: int = 0
    wrong: int = 0
    worst: Comparison | None = None
    worst_node: str = ""
    skipped: str = ""

    def add(self, verdicts: Sequence[Comparison], node: str) -> None:
        """Count the wrong ones, and keep the worst with the node (and who computed it)."""
        for verdict in verdicts:
            self.wrong += not verdict.ok
            if self.worst is None or verdict.used > self.worst.used:
                self.worst, self.worst_node = verdict, node


class FiniteCheck:
    """Stops at the first kernel that makes NaN or Inf out of finite inputs, or reads one."""

    def run(self, plan: Plan) -> None:
        """Raises CheckError naming the node, the kernel, the tensor and the place."""
        for step, launch in plan.walk():
            for name in step.inputs:
                self._look(step, name, "reads", plan.read(step, name))
            launch()
            for name, tensor in step.results.items():
                self._look(step, name, "makes", tensor.numpy())

    def _look(self, step: Step, name: str, verb: str, array: Array | None) -> None:
        # a cache's unused slots may hold anything
        if array is None or array.dtype.kind in "iu" or name == "cache":
            return
        bad = ~np.isfinite(array.astype(np.float32, copy=False))
        if bad.any():
            where = [int(i) for i in np.argwhere(bad)[0]]
            value = step.inputs.get(name) if verb == "reads" else step.outputs.get(name)
            raise CheckError(f"node {step.node.name}: {step.kernel.id} {verb} "
                             f"{array[tuple(where)]} in `{name}` "
                             f"({value.root.name if value is not None else name}) at {where}, "
                             f"{int(bad.sum())} of {bad.size} elements; expected finite values")


class CrossCheck:
    """Computes every node by other backends too (`reference` is the definition) and compares.

    All opinions see the same inputs, so an error does not travel from node to node. The budget is
    the op's own; it is judged against the float64 reference, which is computed in any case.
    """

    def __init__(self, registry: Registry, against: Sequence[str]) -> None:
        self.registry, self.against = registry, list(against)
        self._rows: dict[tuple[str, str, str], CheckRow] = {}
        for name in against:
            if name != REFERENCE:
                registry.backend(name)

    @property
    def rows(self) -> list[CheckRow]:
        return list(self._rows.values())

    @property
    def ok(self) -> bool:
        """True if something was compared and nothing was wrong."""
        return any(r.calls for r in self.rows) and not any(r.wrong for r in self.rows)

    def run(self, plan: Plan) -> None:
        for step, launch in plan.walk():
            before = {p.name: plan.read(step, p.name) for p in step.op.sig.params}
            launch()
            after = {k: np.array(t.numpy()) for k, t in step.results.items()}
            expected = expectations(step.op, before, step.call.attrs)
            names, tolerance = step.op.result_names, step.op.tolerance
            own = _verdicts(after, expected, tolerance)  # the same whoever it is compared with
            for opinion in self.against:
                row = self._rows.setdefault((step.op.name, step.kernel.id, opinion), CheckRow(
                    step.op.name, step.kernel.id, opinion))
                if opinion != REFERENCE:
                    try:
                        theirs = run_kernel(step.op, before, step.call.attrs, backend=opinion,
                                            registry=self.registry)
                    except NoKernelError as error:
                        row.skipped = str(error).splitlines()[0]
                        continue
                    found = dict(zip(names, theirs, strict=True))
                    row.add(_verdicts(found, expected, tolerance), f"{step.node.name} ({opinion})")
                row.add(own, f"{step.node.name} ({step.kernel.id})")
                row.calls += 1


def _verdicts(found: Mapping[str, Array | None], expected: Mapping[str, Expected],
              tolerance: Tolerance) -> list[Comparison]:
    """One for each result that is there."""
    return [compare(array, expected[name], tolerance) for name, array in found.items()
            if array is not None and name in expected]
