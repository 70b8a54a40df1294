"""An observer that stops at the first NaN or Inf."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from core.errors import CheckError
from core.plan.lower import Step
from core.plan.plan import Plan
from core.tensor.tensor import Array
from core.verify.recorder import Recorder, watched_inputs


class FiniteCheck:
    """Stops at the first kernel that makes NaN or Inf out of finite inputs, or reads one; with a
    recorder, that call is left in a replay capsule."""

    def __init__(self, recorder: Recorder | None = None) -> None:
        self.recorder = recorder

    def run(self, plan: Plan) -> None:
        """Raises CheckError naming the node, the kernel, the tensor and the place."""
        for step, launch in plan.walk():
            inputs = watched_inputs(plan, step)
            said = _odd(step, inputs, "reads")
            launch()
            outputs = {k: t.numpy() for k, t in step.results.items()}
            said = said or _odd(step, outputs, "makes")
            if self.recorder is not None and self.recorder.wants(step):
                self.recorder.asked(plan, step, inputs, outputs)
            if said:
                path = self.recorder and self.recorder.trouble(plan, step, inputs, outputs,
                                                               step.kernel.id, said)
                raise CheckError(f"{said}; expected finite values"
                                 + (f"; the call is in {path}" if path else ""))


def _odd(step: Step, arrays: Mapping[str, Array | None], verb: str) -> str:
    for name, array in arrays.items():
        # a cache's unused slots may hold anything
        if array is None or array.dtype.kind in "iu" or name == "cache":
            continue
        bad = ~np.isfinite(array.astype(np.float32, copy=False))
        if bad.any():
            where = [int(i) for i in np.argwhere(bad)[0]]
            value = step.inputs.get(name) if verb == "reads" else step.outputs.get(name)
            return (f"node {step.node.name}: {step.kernel.id} {verb} {array[tuple(where)]} in "
                    f"`{name}` ({value.root.name if value is not None else name}) at {where}, "
                    f"{int(bad.sum())} of {bad.size} elements")
    return ""
