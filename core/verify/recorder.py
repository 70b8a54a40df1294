"""Recorder: where replay capsules go, and which nodes the user wants one of."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path

from core.plan.lower import Step
from core.plan.plan import Plan
from core.tensor.tensor import Array
from core.verify.capsule import Capsule, dtype_names


class Recorder:
    """Writes capsules into `folder`: one for each node that matches a glob of `nodes`, and one for
    each kind of trouble that a check reports, the first time."""

    def __init__(self, folder: Path, nodes: Sequence[str] = ()) -> None:
        self.folder, self.nodes = folder, list(nodes)
        self.written: list[Path] = []
        self._seen: set[tuple[str, ...]] = set()

    def wants(self, step: Step) -> bool:
        """Whether the user asked for this step and has no capsule of it yet."""
        return bool(self.nodes) and ("asked", step.node.name) not in self._seen and any(
            fnmatchcase(n.name, glob) for n in step.covers for glob in self.nodes)

    def asked(self, plan: Plan, step: Step, inputs: Mapping[str, Array | None],
              outputs: Mapping[str, Array]) -> None:
        """Write the capsule of a step that `wants` named."""
        self._seen.add(("asked", step.node.name))
        self._write(plan, step, inputs, outputs, step.kernel.id, "captured on request")

    def trouble(self, plan: Plan, step: Step, inputs: Mapping[str, Array | None],
                outputs: Mapping[str, Array], kernel: str, reason: str) -> Path | None:
        """Write a capsule of what `kernel` made of the step's inputs, unless there is one of it for
        this op already; its path if written."""
        if (step.op.name, kernel) in self._seen:
            return None
        self._seen.add((step.op.name, kernel))
        return self._write(plan, step, inputs, outputs, kernel, reason)

    def unmatched(self) -> list[str]:
        """Globs that no step has matched."""
        done = [key[1] for key in self._seen if key[0] == "asked"]
        return [g for g in self.nodes if not any(fnmatchcase(name, g) for name in done)]

    def _write(self, plan: Plan, step: Step, inputs: Mapping[str, Array | None],
               outputs: Mapping[str, Array], kernel: str, reason: str) -> Path:
        entry = asdict(plan.ledger.entries[plan.steps.index(step)])
        if kernel != step.kernel.id:  # another opinion's result: its kernel, not the run's
            sources = {k.id: text for k, text in plan.selector.registry.sources.items()}
            entry.update(kernel=kernel, source=sources.get(kernel, ""), refused=(), note="")
        label = re.sub(r"[^\w.-]", "_", f"{step.node.name}-{kernel}-{len(self.written)}")
        capsule = Capsule(step.op.name, dict(step.call.attrs), dict(inputs), dict(outputs),
                          dtype_names({**inputs, **outputs}), entry, reason)
        path = capsule.write(self.folder / f"{label}.npz")
        self.written.append(path)
        return path


def watched_inputs(plan: Plan, step: Step) -> dict[str, Array | None]:
    """Copies of a step's inputs as they are now."""
    return {p.name: plan.read(step, p.name) for p in step.op.sig.params}


class Capture:
    """An observer that only runs, and writes the capsules that were asked for."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def run(self, plan: Plan) -> None:
        for step, launch in plan.walk():
            if not self.recorder.wants(step):
                launch()
                continue
            inputs = watched_inputs(plan, step)
            launch()
            self.recorder.asked(plan, step, inputs,
                                {k: t.numpy() for k, t in step.results.items()})
