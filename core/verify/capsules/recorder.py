"""Records calls in replay capsules, on request, at a fault, or at the first NaN or Inf."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from core.errors import CheckError
from core.plan.lower import Binding
from core.plan.plan import Plan
from core.tensor.tensor import Array
from core.verify.capsules.capsule import Capsule, dtype_names
from core.verify.capsules.provenance import environment, source_hash
from core.verify.values import inputs_of, results_of


class Recorder:
    """Writes capsules into `folder`: one for each node that matches a glob of `nodes`, and one for
    each kind of trouble that a check reports, the first time."""

    def __init__(self, folder: Path, nodes: Sequence[str] = ()) -> None:
        self.folder, self.nodes = folder, list(nodes)
        self.written: list[Path] = []
        self._seen: set[tuple[str, ...]] = set()

    def wants(self, binding: Binding) -> bool:
        """Return True if the user asked for this step and has no capsule of it yet."""
        return bool(self.nodes) and ("asked", binding.node.name) not in self._seen and any(
            fnmatchcase(n.name, glob) for n in binding.covers for glob in self.nodes)

    def asked(self, plan: Plan, binding: Binding, inputs: Mapping[str, Array | None],
              outputs: Mapping[str, Array]) -> None:
        """Write the capsule of a step that `wants` named."""
        self._seen.add(("asked", binding.node.name))
        self._write(plan, binding, inputs, outputs, binding.kernel.id, "captured on request")

    def trouble(self, plan: Plan, binding: Binding, inputs: Mapping[str, Array | None],
                outputs: Mapping[str, Array], kernel: str, reason: str) -> Path | None:
        """Write a capsule of what `kernel` made of the step's inputs, unless there is one of it for
        this op already. Returns its path if written."""
        if (binding.op.name, kernel) in self._seen:
            return None
        self._seen.add((binding.op.name, kernel))
        return self._write(plan, binding, inputs, outputs, kernel, reason)

    def unmatched(self) -> list[str]:
        """Return the globs that no step has matched."""
        done = [key[1] for key in self._seen if key[0] == "asked"]
        return [g for g in self.nodes if not any(fnmatchcase(name, g) for name in done)]

    def _write(self, plan: Plan, binding: Binding, inputs: Mapping[str, Array | None],
               outputs: Mapping[str, Array], kernel: str, reason: str) -> Path:
        entry = asdict(plan.ledger.entries[plan.bindings.index(binding)])
        registry, made = plan.policy.registry, binding.kernel
        if kernel != made.id:  # a shadow's result: its kernel, not the run's
            made = next((k for k in registry.sources if k.id == kernel), made)
            entry.update(kernel=kernel, source=registry.sources[made] if made.id == kernel else "",
                         refused=(), note="")
        label = re.sub(r"[^\w.-]", "_", f"{binding.node.name}-{kernel}-{len(self.written)}")
        capsule = Capsule(binding.op.name, dict(binding.call.attrs), dict(inputs), dict(outputs),
                          dtype_names({**inputs, **outputs}), entry, reason,
                          environment(made, registry),
                          source_hash(made, registry) if made.id == kernel else "")
        path = capsule.write(self.folder / f"{label}.npz")
        self.written.append(path)
        return path


class Capture:
    """Observes a run without checking it, and writes the capsules that were asked for."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def run(self, plan: Plan) -> None:
        for binding, launch in plan.walk():
            if not self.recorder.wants(binding):
                launch()
                continue
            inputs = inputs_of(plan, binding)
            launch()
            self.recorder.asked(plan, binding, inputs, results_of(binding))


class FiniteCheck:
    """Observes a run, and stops it at the first kernel that makes or reads NaN or Inf.

    recorder  leaves that call in a replay capsule; without one it is only named
    """

    def __init__(self, recorder: Recorder | None = None) -> None:
        self.recorder = recorder

    def run(self, plan: Plan) -> None:
        """Run the plan. Raises CheckError naming the node, the kernel, the tensor and the place."""
        recorder = self.recorder
        for binding, launch in plan.walk():
            inputs = inputs_of(plan, binding)
            said = _odd(binding, inputs, "reads")
            launch()
            outputs = results_of(binding)
            said = said or _odd(binding, outputs, "makes")
            if recorder is not None and recorder.wants(binding):
                recorder.asked(plan, binding, inputs, outputs)
            if said:
                path = recorder and recorder.trouble(plan, binding, inputs, outputs,
                                                     binding.kernel.id, said)
                raise CheckError(f"{said}; expected finite values"
                                 + (f"; the call is in {path}" if path else ""))


def _odd(binding: Binding, arrays: Mapping[str, Array | None], verb: str) -> str:
    for name, array in arrays.items():
        # a cache's unused slots may hold anything
        if array is None or array.dtype.kind in "iu" or name == "cache":
            continue
        bad = ~np.isfinite(array.astype(np.float32, copy=False))
        if bad.any():
            where = [int(i) for i in np.argwhere(bad)[0]]
            value = binding.inputs.get(name) if verb == "reads" else binding.outputs.get(name)
            return (f"node {binding.node.name}: {binding.kernel.id} {verb} "
                    f"{array[tuple(where)]} in "
                    f"`{name}` ({value.root.name if value is not None else name}) at {where}, "
                    f"{int(bad.sum())} of {bad.size} elements")
    return ""
