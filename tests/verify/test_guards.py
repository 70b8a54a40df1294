"""A kernel that writes where it may not, or gives other bits for equal inputs, is named with that
as the reason."""

import ctypes
from functools import cache

import numpy as np
import pytest
import toy_backend
from suspect_backend import with_suspect

import models
from core.installed.registry import Registry
from core.ir.op import OPS
from core.plan.arena import GUARD
from core.plugins.backend import BackendSpec
from core.runtime.run_op import single_op_plan
from core.verify.crosscheck import CrossCheck
from core.verify.guard import GuardedPlan
from core.verify.trace import Trace, first_divergence

PROMPT = [1, 40, 50, 60]


def right(array):
    """Leave a result as the definition gives it."""


def beyond(nbytes, offset=0):
    def write(ins, outs):
        ctypes.memset(outs[0].ctypes.data + outs[0].nbytes + offset, 0x41, nbytes)
    return write


def before(nbytes):
    return lambda ins, outs: ctypes.memset(outs[0].ctypes.data - nbytes, 0x41, nbytes)


def change(which):
    def write(ins, outs):
        address = ins[which].ctypes.data
        ctypes.memset(address, 0x41, 4)
    return write


def checked(op, whole, against, *, spoil=right, steps=3):
    """Return the tally of a run in which `suspect` computes one op."""
    registry = with_suspect(OPS[op], spoil, whole)
    with models.load("stories-llama3", backend="suspect,cpu_numpy", registry=registry, fusion=False,
                     max_context=64) as model:
        check = CrossCheck(registry, [against])
        with model.session.observed(check):
            model.session.prefill(PROMPT)
            tokens = [model.session.token, *(model.session.step() for _ in range(steps))]
    return check.tally, tokens


@cache
def right_tokens():
    return checked("rms_norm", None, "cpu_numpy")[1]


def test_in_a_composition_the_part_that_changes_its_input_is_named_alone():
    """The parts of `add_rms_norm` hand `sum` on: add made it right, rms_norm changes it."""
    registry = with_suspect(OPS["rms_norm"], right, change(0))
    with models.load("stories-llama3", backend="cpu_numpy", registry=registry,
                     max_context=64) as model:
        assert "add_rms_norm" in {e.op for e in model.ledger.entries}
        check = CrossCheck(registry, ["suspect,cpu_numpy"])
        with model.session.observed(check):
            model.session.prefill(PROMPT)
    assert set(check.tally.faults()) == {("rms_norm", "suspect:spoilt")}
    fused = [r for r in check.tally.rows if r.op == "add_rms_norm"]
    assert fused and all("changed its input `x`" in r.reason for r in fused)


AGAINST = pytest.mark.parametrize("against", ["cpu_numpy", "reference"])
FAULTS = {
    "4 beyond": (beyond(4), "wrote 4 bytes beyond `out`, from 0 bytes after its end"),
    "64 beyond": (beyond(64), "wrote 64 bytes beyond `out`, from 0 bytes after its end"),
    "4096 beyond": (beyond(4096), "wrote 4096 bytes beyond `out`"),
    "4 near the guard's end": (beyond(4, GUARD - 4), "beyond `out`, from 4092 bytes after"),
    "4 before": (before(4), "wrote 4 bytes before `out`, from 4 bytes before its start"),
    "input": (change(0), "changed its input `x`: 1 of "),
}


@AGAINST
@pytest.mark.parametrize("fault", FAULTS)
def test_a_stray_write_is_the_reason(fault, against):
    whole, says = FAULTS[fault]
    tally, tokens = checked("rms_norm", whole, against)
    assert list(tally.faults()) == [("rms_norm", "suspect:spoilt")], tally.rows
    (row,) = [r for r in tally.rows if r.wrong]
    assert says in row.reason and row.reason.startswith("layers.0.input_layernorm")
    assert "suspect:spoilt" in row.reason and row.wrong == row.calls
    assert "on 1 of " in str(tally) and "DISAGREES" in str(tally) and "(rms_norm)" in str(tally)
    assert tokens == right_tokens(), "what was changed is put back"


@AGAINST
def test_a_right_kernel_is_not_accused(against):
    tally, _ = checked("rms_norm", None, against)
    assert tally.ok and "agrees with" in str(tally)
    assert "seen: lengths 4 to 7, T 1 and 4, groups 2" in str(tally)


@AGAINST
def test_rows_of_the_cache_that_a_call_may_not_write(against):
    def other_row(ins, outs):
        ins[2][1, -1, -1, 0, 0] += 3

    def read_only(ins, outs):
        ins[1][0, 0, 0, 0, 0] += 3
    tally, _ = checked("kv_cache_write", other_row, against)
    assert list(tally.faults()) == [("kv_cache_write", "suspect:spoilt")]
    (row,) = [r for r in tally.rows if r.wrong]
    assert "changed its input `cache` outside of what it may write: 1 of" in row.reason
    tally, _ = checked("attention", read_only, against)
    assert list(tally.faults()) == [("attention", "suspect:spoilt")]
    (row,) = [r for r in tally.rows if r.wrong]
    assert "changed its input `cache`: 1 of" in row.reason
    assert "the first at [0, 0, 0, 0, 0]" in row.reason


def test_a_weight():
    x = np.ones((2, 2048), np.float32)
    for place in (0, 5, 2047):
        registry = with_suspect(OPS["rms_norm"], right,
                                lambda ins, outs, place=place: ins[1].__setitem__(place, 7.5))
        plan = single_op_plan(OPS["rms_norm"], {"x": x, "weight": x[0].copy()}, {"eps": 1e-5},
                              backend="suspect", registry=registry)
        for against in ("reference", "cpu_numpy"):
            plan.weights.arrays["weight"][...] = 1
            check = CrossCheck(registry, [against])
            check.run(plan)
            assert list(check.tally.faults()) == [("rms_norm", "suspect:spoilt")]
            assert f"changed its weight `weight`: from about byte {place // 1024 * 4096} of 8192" \
                in check.tally.rows[0].reason


@AGAINST
def test_a_write_into_other_tensors(against):
    """Beyond the guard of an output lies what other nodes read: it is put back for them."""
    tally, tokens = checked("rms_norm", beyond(64, GUARD), against)
    assert list(tally.faults()) == [("rms_norm", "suspect:spoilt")], tally.rows
    (row,) = [r for r in tally.rows if r.wrong]
    assert "wrote 64 bytes " in row.reason
    assert "from 4096 bytes after the end of `out`" in row.reason
    assert tokens == right_tokens()


def test_a_trace_survives_a_stray_write():
    """Neither ends the process nor spoils other nodes: what verify does before it checks."""
    outcomes = []
    for whole in (None, beyond(GUARD)):
        registry, trace = with_suspect(OPS["rms_norm"], right, whole), Trace()
        with models.load("stories-llama3", backend="suspect,cpu_numpy", registry=registry,
                         fusion=False, max_context=64) as model, model.session.observed(trace):
            model.session.prefill(PROMPT)
            outcomes.append((trace, model.session.token))
    (first, a), (second, b) = outcomes
    assert first_divergence(first, second) is None and a == b


def test_a_race_and_hidden_state_are_called_that():
    state = [0]

    def race(array):
        state[0] += 1
        array[..., 0] += state[0] % 3 * np.float32(0.1)
    for against in ("cpu_numpy", "reference"):
        tally, _ = checked("rms_norm", None, against, spoil=race)
        (row,) = [r for r in tally.rows if r.wrong]
        assert "a race, or hidden state: " in row.vote and "of 8 repeats" in row.vote
    tally, _ = checked("rms_norm", None, "cpu_numpy",
                       spoil=lambda a: a.__setitem__((..., 0), a[..., 0] + 1))
    (row,) = [r for r in tally.rows if r.wrong]
    assert row.vote and "repeats" not in row.vote


def test_which_calls_are_wrong():
    def long(ins, outs):
        if ins[5][0] > 5:
            outs[0][...] += 1
    tally, _ = checked("attention", long, "reference")
    (row,) = [r for r in tally.rows if r.wrong]
    assert row.coverage.which == "all calls of length beyond 5 are wrong, none up to that"
    assert row.to_json()["wrong_calls"] == row.coverage.which and "lengths" in row.coverage.seen()


def test_memory_that_the_host_cannot_read():
    registry = Registry()
    registry.specs["toy"] = BackendSpec("toy", "toy", "toy_backend:ToyBackend", "for tests")
    registry.opened["toy"] = toy_backend.ToyBackend()
    kernel = next(iter(toy_backend.kernels))
    a = np.ones((3, 8), np.float32)

    def launch_of(bind):
        registry._kernels["toy"] = {"add": [type(kernel)("add", "toy", "add", bind,
                                                         kernel.dtypes)]}
        registry.sources.update(dict.fromkeys(registry._kernels["toy"]["add"], "test"))
        plan = single_op_plan(OPS["add"], {"a": a, "b": a}, {}, backend="toy", registry=registry,
                              guard=GUARD)
        ((_, launch),) = GuardedPlan(plan).walk()
        return launch

    def stray(a, b, out):
        def launch():
            np.add(a, b, out=out)
            ctypes.memset(out.ctypes.data + out.nbytes + 8, 0, 12)
        return launch
    assert launch_of(kernel.bind)() == []
    assert launch_of(stray)() == ["wrote 12 bytes beyond `out`, from 8 bytes after its end"]
