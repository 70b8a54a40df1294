"""The suite fails a family whose kernels give a row other bits, and holds for the real ones."""

from dataclasses import replace

import pytest

from core.conformance.families import Differs, FamilyCase, family_cases
from core.installed.registry import Registry
from core.tensor.dtype import f32


def case_with(op: str, name: str) -> FamilyCase:
    """Return the family `rows` of cpu_numpy with one more kernel, which is not of it."""
    registry = Registry()
    kernels = registry.kernels("cpu_numpy", op)
    liar = replace(next(k for k in kernels if k.name == name), name="liar", family="rows")
    kernels.append(liar)
    registry.sources[liar] = "test"
    return next(c for c in family_cases(registry, "cpu_numpy")
                if liar in c.kernels and c.dtypes["A"] is f32)


@pytest.mark.parametrize(("op", "name"), [
    ("linear", "linear"), ("quantized_linear", "quantized_linear"), ("attention", "attention"),
    ("gate_up_swiglu", "gate_up_swiglu")])
def test_a_kernel_of_another_family_is_found(op, name):
    with pytest.raises(Differs, match="has other bits by") as error:
        case_with(op, name).check()
    assert error.value.kernel == "liar" or op == "quantized_linear"


@pytest.mark.parametrize("op", ["linear", "attention", "kv_cache_write", "add_rms_norm"])
def test_the_real_family_holds(op):
    for case in family_cases(Registry(), "cpu_numpy"):
        if case.kernels[0].op == op and case.dtypes["A"] is f32:
            case.check()
