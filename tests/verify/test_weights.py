"""A write to any page of a weight is found within sixteen calls, and who made it is named."""

import numpy as np
import pytest
from suspect_backend import with_suspect

from core.ir.op import OPS
from core.runtime.run_op import single_op_plan
from core.tensor.dtype import f32
from core.tensor.host import HostAllocator
from core.tensor.tensor import Tensor
from core.verify.crosscheck import CrossCheck
from core.verify.memory.weights import PAGE, page_sums

PAGES, OFTEN = 4, 16
X = np.ones((2, PAGES * PAGE // 4), np.float32)
X[:, 7::PAGE // 4] = 0  # what is written there changes no result


def found(writes, page, *, runs="suspect", against="cpu_numpy", calls=40):
    """Return the first call at which a weight's change is told, and the tally. `writes` tells in
    which of its calls the kernel of `suspect` changes the page, counted from 1."""
    count = [0]

    def spoil(ins, outs):
        count[0] += 1
        if writes(count[0]):
            ins[1][page * PAGE // 4 + 7] += 1
    registry = with_suspect(OPS["rms_norm"], lambda array: None, spoil)
    plan = single_op_plan(OPS["rms_norm"], {"x": X, "weight": np.ones_like(X[0])}, {"eps": 1e-5},
                          backend=runs, registry=registry)
    check = CrossCheck(registry, [against])
    for call in range(1, calls + 1):
        check.run(plan)
        if check.tally.wrong:
            return call, check.tally
    return None, check.tally


@pytest.mark.parametrize("page", range(PAGES))
@pytest.mark.parametrize(("runs", "against"), [("suspect", "cpu_numpy"), ("cpu_numpy", "suspect")])
def test_a_writer_that_begins_late(page, runs, against):
    for begins in (2, 9, 16, 17):
        call, tally = found(lambda count, at=begins: count >= at, page, runs=runs, against=against)
        assert call is not None and begins <= call <= begins + OFTEN
        assert list(tally.faults()) == [("rms_norm", "suspect:spoilt")]
        assert tally.rows[0].reason.endswith(
            f"changed its weight `weight`: from about byte {page * PAGE} of {PAGES * PAGE}")


@pytest.mark.parametrize("page", range(PAGES))
def test_a_single_write_is_found_too(page):
    for when in (1, 2, 8, 15, 16, 17, 30):
        call, tally = found(lambda count, at=when: count == at, page, calls=when + OFTEN)
        assert call is not None and when <= call <= when + OFTEN
        assert list(tally.faults()) == [("rms_norm", "suspect:spoilt")]
        assert f"from about byte {page * PAGE}" in tally.rows[0].reason
    assert "in one of its last 16 calls, and not when launched again; or cpu_numpy:" in (
        found(lambda count: count == 5, page)[1].rows[0].reason)


def test_a_right_kernel_is_not_accused():
    assert found(lambda count: False, 0)[0] is None


@pytest.mark.parametrize("change", [
    lambda a: a * 2, lambda a: -a, lambda a: a[::-1], lambda a: np.roll(a, 2), lambda a: a + 1,
    lambda a: np.where(np.arange(a.size) == 5, -a, a)])
@pytest.mark.parametrize("like", ["ones", "ordered"])
def test_a_page_has_another_sum(change, like):
    page = np.arange(1, PAGE // 4 + 1, dtype=np.float32)
    page = page if like == "ordered" else np.ones_like(page)
    changed = np.ascontiguousarray(change(page), np.float32)
    one, other = (page_sums(Tensor.from_numpy(a, HostAllocator(), f32)) for a in (page, changed))
    assert np.array_equal(one, other) == np.array_equal(page, changed)
