"""Tests every op × backend × dtype × example against the float64 reference."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from core.conformance.apart.devices import note_failure
from core.conformance.cases import Case, cases_of
from core.conformance.options import flag
from core.conformance.plugin import registry_of
from core.conformance.report import BACKEND, CASE, case_facts, finite
from core.conformance.runner import Outcome, run_case, time_case
from core.errors import KernelError
from core.ir.op import Op
from core.plugins.kernel import Kernel


def test_matches_reference(case: Case, record_property: Callable[[str, object], None],
                           pytestconfig: pytest.Config) -> None:
    registry = registry_of(pytestconfig)
    found = case_facts(case)
    record_property(CASE, found)
    if case.example is None:
        kinds = ", ".join(f"{k}={d}" for k, d in case.dtypes.items())
        pytest.skip(f"{case.backend} offers no {case.op.name} kernel for {kinds}")
    call = case.call
    refusals: dict[Kernel, str | None] = {}
    outcomes = []
    for kernel in registry.kernels(case.backend, case.op.name):
        try:
            refusals[kernel] = kernel.refuses(call)
        except KernelError as error:
            outcomes.append(Outcome(kernel, {}, {}, [str(error)]))
    willing = [k for k, reason in refusals.items() if reason is None]
    if not willing and not outcomes:
        found["reasons"] = [f"{k.id}: {reason}" for k, reason in refusals.items()]
        pytest.skip(f"{case.op.name}: no kernel takes this example: {', '.join(found['reasons'])}")
    runs = pytestconfig.getoption(flag("repeat"))
    for kernel in willing:
        outcomes.append(run_case(case, kernel, registry, case.expected, runs))
        if not outcomes[-1].ok and note_failure(registry, str(outcomes[-1])):
            break
    found["used"] = finite(max(o.used for o in outcomes))
    found["own"] = any(not c.ok for o in outcomes for c in o.comparisons.values())
    found["kernels"] = {o.kernel.name: {"ok": o.ok, "used": finite(o.used)} for o in outcomes}
    found["tolerances"] = {f"{k.id} for {k.op}": str(k.tolerance) for k in willing if k.tolerance}
    wrong = [o for o in outcomes if not o.ok]
    if wrong:
        pytest.fail("\n".join([*map(str, wrong), f"tolerance of {case.op.name}: "
                               f"{case.op.tolerance}"]), pytrace=False)
    cost = case.op.cost(call.inputs, call.attrs)
    chosen = next((k for k in willing if k.option is None), willing[0])
    if pytestconfig.getoption(flag("time")) and cost.nbytes:
        found["speed"] = {"sample": case.example.name, "kernel": chosen.id,
                          "seconds": time_case(case, chosen, registry),
                          "nbytes": cost.nbytes}


def test_takes_an_example(kernel: Kernel, record_property: Callable[[str, object], None]) -> None:
    """Fail a kernel that refuses every example, as nothing has shown it right.

    The matrix holds it to what it takes, so taking one case is what remains to be asked. A kernel
    that is not for this machine is judged on another.
    """
    record_property(BACKEND, kernel.backend)
    if kernel.machine is not None and (lacks := kernel.machine()):
        pytest.skip(f"{kernel.id} {lacks}")
    reasons = {}
    for case in cases_of(kernel):
        call = case.call
        if call.dims.get("T", call.dims.get("S", 1)) == 0:
            continue  # no tokens
        try:
            reason = kernel.refuses(call)
        except KernelError as error:
            pytest.fail(str(error), pytrace=False)
        if reason is None:
            return
        reasons[case.id] = reason
    pytest.fail(f"{kernel.id} takes no example of {kernel.op} that has anything in it, so nothing "
                "shows it right: " + ("; ".join(f"{c}: {why}" for c, why in reasons.items()) or
                                      "the matrix has no case with its dtypes"), pytrace=False)


def test_rejects_bad_inputs(op: Op) -> None:
    for example in op.error_examples():
        with pytest.raises(example.error, match=example.match):
            op.infer(example.inputs, op.complete(example.attrs))
