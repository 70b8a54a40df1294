"""Every op × backend × dtype × sample against the float64 definition."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from core.conformance.cases import Case, dtype_id
from core.conformance.gpu_report import PROPERTY
from core.conformance.runner import run_case
from core.op import OPS, Op
from core.registry import default_registry

REGISTRY = default_registry()  # it brings the plugins' ops into OPS


def test_matches_reference(case: Case, record_property: Callable[[str, object], None]) -> None:
    cell = [case.op.name, case.backend, dtype_id(case.dtypes), 0.0]
    record_property(PROPERTY, cell)
    if case.sample is None:
        kinds = ", ".join(f"{k}={d}" for k, d in case.dtypes.items())
        pytest.skip(f"{case.backend} offers no {case.op.name} kernel for {kinds}")
    call = case.call
    refusals = {k: k.refuses(call) for k in REGISTRY.kernels(case.backend, case.op.name)}
    willing = [k for k, reason in refusals.items() if reason is None]
    if not willing:
        reasons = ", ".join(f"{k.id}: {reason}" for k, reason in refusals.items())
        pytest.skip(f"{case.op.name}: no kernel takes this sample: {reasons}")
    outcomes = [run_case(case, kernel, REGISTRY, case.expected) for kernel in willing]
    cell[-1] = max(o.used for o in outcomes)
    wrong = [o for o in outcomes if not o.ok]
    tolerance = case.op.tolerance
    assert not wrong, "\n".join([*map(str, wrong), f"tolerance of {case.op.name}: factor "
                                 f"{tolerance.factor:g}, {tolerance.ulps:g} ULP because "
                                 f"{tolerance.reason}"])


@pytest.mark.parametrize("op", [pytest.param(op, id=op.name) for op in OPS.values()])
def test_rejects_bad_inputs(op: Op) -> None:
    for sample in op.error_samples():
        with pytest.raises(sample.error, match=sample.match):
            op.infer(sample.inputs, op.complete(sample.attrs))

