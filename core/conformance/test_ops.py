"""Every op × backend × dtype × sample against the float64 definition."""

from __future__ import annotations

import pytest

from core.backend import Call
from core.conformance.cases import Case
from core.conformance.runner import references, run_case
from core.dispatch import single_op_plan
from core.errors import NoKernelError
from core.op import OPS, Op
from core.registry import default_registry


def test_matches_reference(case: Case) -> None:
    registry = default_registry()
    kernels = registry.kernels(case.backend, case.op.name)
    if case.sample is None:
        kinds = ", ".join(f"{k}={d}" for k, d in case.dtypes.items())
        pytest.skip(f"{case.backend} offers no {case.op.name} kernel for {kinds}")
    call = _call(case)
    refusals = {k.id: k.refuses(call) for k in kernels}
    willing = [k for k in kernels if refusals[k.id] is None]
    if not willing:
        pytest.skip(f"{case.op.name}: no kernel takes this sample: {refusals}")
    expected = references(case)
    wrong = [o for o in (run_case(case, k, registry, expected) for k in willing) if not o.ok]
    assert not wrong, "\n".join([*map(str, wrong), f"tolerance of {case.op.name}: factor "
                                 f"{case.op.tolerance.factor:g}, {case.op.tolerance.ulps:g} ULP "
                                 f"because {case.op.tolerance.reason}"])


@pytest.mark.parametrize("op", [pytest.param(op, id=op.name) for op in OPS.values()])
def test_rejects_bad_inputs(op: Op) -> None:
    for sample in op.error_samples():
        with pytest.raises(sample.error, match=sample.match):
            op.infer(sample.inputs, op.complete(sample.attrs))


def _call(case: Case) -> Call:
    try:
        plan = single_op_plan(case.op, case.arrays, case.attrs, backend=case.backend)
    except NoKernelError as error:
        pytest.skip(str(error))
    return plan.steps[0].call
