"""A kernel that changes what is not its call's alone is named: prepacked weights, the modes of
arithmetic, the description of the call."""

from dataclasses import replace

import numpy as np
import pytest
from suspect_backend import with_suspect

from core.errors import KernelError
from core.ir.op import OPS
from core.runtime.run_op import single_op_plan
from core.verify.crosscheck import CrossCheck

X = np.ones((2, 8), np.float32)
NORM = {"x": X, "weight": X[0]}


def checked(op, arrays, attrs, change=lambda kernel: kernel, *, whole=None, runs="suspect",
            against="cpu_numpy"):
    """Return the tally of one call; `suspect` has the kernel that `change` returns."""
    registry = with_suspect(OPS[op], lambda array: None, whole)
    kernel = change(registry._kernels["suspect"][op][0])
    registry._kernels["suspect"][op] = [kernel]
    registry.sources[kernel] = "test"
    check = CrossCheck(registry, [against])
    check.run(single_op_plan(OPS[op], arrays, attrs, backend=runs, registry=registry))
    return check.tally


def prepacked(spoils):
    def bind(x, weight, bias, out):
        def launch():
            np.matmul(x, weight.T, out=out)
            if spoils:
                weight[0, 0] += 1
        return launch
    return lambda kernel: replace(
        kernel, bind=bind, packs=lambda call: {"weight": call.inputs["weight"]},
        prepare=lambda call, packed, weight: np.copyto(packed["weight"], weight))


@pytest.mark.parametrize("spoils", [False, True])
@pytest.mark.parametrize(("runs", "against"), [("suspect", "reference"), ("suspect", "cpu_numpy"),
                                               ("cpu_numpy", "suspect")])
def test_a_prepacked_weight(runs, against, spoils):
    tally = checked("linear", {"x": X, "weight": X[:1].repeat(8, 0), "bias": None}, {},
                    prepacked(spoils), runs=runs, against=against)
    assert list(tally.faults()) == [("linear", "suspect:spoilt")] * spoils
    assert not spoils or "changed its prepacked weight `weight`: from about byte 0 of 256" in (
        tally.rows[0].reason)


def test_modes_of_arithmetic_are_everybodys():
    before = np.geterr()
    tally = checked("rms_norm", NORM, {"eps": 1e-5},
                    whole=lambda ins, outs: np.seterr(divide="raise"))
    assert list(tally.faults()) == [("rms_norm", "suspect:spoilt")] and np.geterr() == before
    assert "changed NumPy's error state, which is every kernel's" in tally.rows[0].reason


def test_bind_may_not_change_them_either():
    def bind(x, weight, out, *, eps):
        np.seterr(divide="raise")
        return lambda: None
    before = np.geterr()
    with pytest.raises(KernelError, match=r"suspect:spoilt.*bind changed NumPy's error state"):
        checked("rms_norm", NORM, {"eps": 1e-5}, lambda kernel: replace(kernel, bind=bind))
    assert np.geterr() == before


def test_a_kernel_cannot_change_the_call():
    with pytest.raises(KernelError, match="supports raised AttributeError"):
        checked("rms_norm", NORM, {"eps": 1e-5}, lambda kernel: replace(
            kernel, supports=lambda call: call.attrs.update(eps=1.0)))


def test_supports_that_changes_its_mind():
    answers = iter((None, "not today"))
    with pytest.raises(KernelError, match=r"suspect:spoilt.*depends on more than the call"):
        checked("rms_norm", NORM, {"eps": 1e-5}, lambda kernel: replace(
            kernel, supports=lambda call: next(answers)), runs="suspect,cpu_numpy")
