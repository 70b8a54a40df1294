"""The default examples and the way in which the suite runs them find faults that depend on what
lies around a call: other sequences, an earlier launch, where a prompt begins."""

import numpy as np
import pytest
from suspect_backend import with_suspect

from core.conformance.cases import Case, cells, examples_of
from core.conformance.runner import FICKLE, run_case
from core.ir.op import OPS


def outcome(op, example, whole, **changed):
    """Run one example in f32 by a right kernel of which `whole(inputs, outputs)` spoils results."""
    registry = with_suspect(OPS[op], lambda array: None, whole)
    (kernel,) = registry._kernels["suspect"][op]
    for name, value in changed.items():
        object.__setattr__(kernel, name, value)
    dtypes = next(d for d in cells(OPS[op]) if all(v.short == "f32" for v in d.values()))
    (found,) = [e for e in examples_of(OPS[op], dtypes) if e.name == example]
    case = Case(OPS[op], "suspect", dtypes, found)
    with np.errstate(all="ignore"):
        return run_case(case, kernel, registry, case.expected)


def last_row(when):
    def whole(ins, outs):
        if when(*ins):
            outs[0][-1:] += 1
    return whole


FOUND = {
    "over 100 sequences": ("attention", "decode_S130", lambda q, *rest: len(rest[-1]) > 100),
    "the longest sequence is the last": (
        "attention", "decode_S130", lambda q, *rest: rest[-1].argmax() == len(rest[-1]) - 1),
    "over 64 tokens behind a past": (
        "attention", "chunk_100_at_200", lambda q, *rest: len(q) > 64 and rest[-1][0] > len(q)),
    "positions that count from 0": (
        "rope", "from_0_half", lambda x, p, f: (p == np.arange(len(p))).all()),
    "interleaved, far positions": ("rope", "far_interleaved", lambda x, p, f: p.max() > 100000),
    "the last column is the largest": ("argmax", "ends", lambda x: (x.argmax(1) == 151935).any()),
    "rows of -Inf but for one": ("softmax", "masked", lambda x: np.isneginf(x).sum(1).max() > 68)}


@pytest.mark.parametrize("name", FOUND)
def test_the_default_examples_find(name):
    op, example, when = FOUND[name]
    assert outcome(op, example, None).ok
    assert not outcome(op, example, last_row(when)).ok


def keeps(first):
    """Give each launch the first one's results."""
    def whole(ins, outs):
        outs[0][...] = first.setdefault(outs[0].shape, outs[0].copy())
    return whole


def test_results_of_an_earlier_launch_are_wrong():
    found = outcome("add", "T17_D896", keeps({}))
    assert "WRONG" in str(found) and not found.broken


def test_a_change_of_mind_is_the_kernels():
    answers = iter([*[None] * 1, "not today"])
    found = outcome("add", "T17_D896", None, supports=lambda call: next(answers))
    assert found.ok
    found = outcome("add", "T17_D896", None, supports=lambda call: "not today")
    assert found.broken[0].startswith(FICKLE) and "not today" in found.broken[0]


def test_modes_of_arithmetic_are_named():
    before = np.geterr()
    found = outcome("add", "T17_D896", lambda ins, outs: np.seterr(invalid="call"))
    assert found.broken == ["changed NumPy's error state, which is every kernel's"]
    assert np.geterr() == before
