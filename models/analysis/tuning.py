"""Times every kernel of some backends at the calls of a model, and checks each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from core.conformance.cases import Case, dtype_id
from core.conformance.report import finite
from core.conformance.runner import run_case, time_case
from core.errors import OptionError
from core.installed.registry import Registry
from core.ir.op import find_op
from core.plugins.kernel import Kernel
from core.verify.compare import Expected
from models.analysis.calls import model_calls
from models.checkpoints.base import Checkpoint
from models.engine.options import LoadOptions


def tune(checkpoint: Callable[[], Checkpoint], options: LoadOptions, registry: Registry,
         backends: Sequence[str], ops: Sequence[str], prompt: int, runs: int,
         ) -> list[dict[str, Any]]:
    """Return a row for each kernel at each call of these ops: in decode steps at the end of the
    context that `options` name, and in a prompt of `prompt` tokens.

    runs  of each kernel for the verdict, which must give equal bits; at least two are made
    Raises OptionError where the model has no call of an op.
    """
    for name in ops:
        find_op(name)
    rows: list[dict[str, Any]] = []
    expected: dict[str, Mapping[str, Expected]] = {}
    for backend in backends:
        calls = model_calls(checkpoint(), options, registry, backend, prompts=[prompt],
                            contexts=[options.max_context or prompt])
        if missing := [n for n in ops if all(c.op != n for c in calls)]:
            raise OptionError(f"--op {missing[0]}: the model has no call of it; it has "
                              f"{', '.join(sorted({c.op for c in calls}))}")
        for call in [c for c in calls if c.op in ops]:
            case = call.case(backend)
            key = f"{call.op} {dtype_id(case.dtypes)} {call.name}"
            cost = case.op.cost(call.specs, dict(call.attrs))
            for kernel in registry.kernels(backend, call.op):
                row = {"op": call.op, "dtypes": dtype_id(case.dtypes), "call": call.name,
                       "phase": call.phase, "nodes": call.nodes, "backend": backend,
                       "kernel": kernel.id, "source": registry.sources[kernel],
                       "nbytes": cost.nbytes, "flops": cost.flops}
                rows.append({**row, **_measured(case, kernel, registry, expected, key, runs)})
    return rows


def _measured(case: Case, kernel: Kernel, registry: Registry,
              expected: dict[str, Mapping[str, Expected]], key: str, runs: int) -> dict[str, Any]:
    """Return seconds, rates and the verdict; without them, why the kernel refuses the call."""
    refused = kernel.refuses(case.call)
    if refused is not None:
        return {"refused": refused, "ok": None, "verdict": "", "budget_used": None,
                "seconds": None, "bytes_per_s": None, "flops_per_s": None}
    if key not in expected:
        expected[key] = case.expected
    outcome = run_case(case, kernel, registry, expected[key], max(2, runs))
    seconds = time_case(case, kernel, registry)
    cost = case.op.cost(case.call.inputs, case.call.attrs)
    return {"refused": "", "ok": outcome.ok, "verdict": str(outcome),
            "budget_used": finite(outcome.used), "seconds": seconds,
            "bytes_per_s": cost.nbytes / seconds, "flops_per_s": cost.flops / seconds}
