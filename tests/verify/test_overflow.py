"""Where float32 itself overflows no kernel is accused, and the verdict says so."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from suspect_backend import spoil, with_suspect

import models
from core.installed.registry import Registry
from core.ir.op import OPS
from core.runtime.run_op import single_op_plan
from core.verify.capsules.capsule import Capsule, dtype_names
from core.verify.capsules.replay import replay
from core.verify.compare import compare
from core.verify.crosscheck import CrossCheck
from core.verify.expected import expectations


def call(size):
    """Return an attention call whose scores are about `size` squared."""
    rng = np.random.default_rng(1)
    q, cache = (rng.standard_normal(s).astype(np.float32) * np.float32(size)
                for s in ((3, 2, 8), (2, 2, 16, 1, 8)))
    return {"q": q, "cache": cache, "cache_scales": None,
            "block_table": np.array([[0, 1]], np.int32),
            "query_starts": np.array([0, 3], np.int32), "seq_lens": np.array([20], np.int32)}


@pytest.mark.parametrize("against", ["reference", "cpu_numpy+no-fusion"])
def test_an_innocent_kernel_is_not_accused(against):
    registry = with_suspect(OPS["attention"], lambda a: None)
    plan = single_op_plan(OPS["attention"], call(1e20), {"scale": 1.0}, backend="suspect",
                          registry=registry)
    check = CrossCheck(registry, [against])
    with np.errstate(all="ignore"):
        check.run(plan)
    assert check.tally.ok and check.tally.faults() == {}
    if against == "reference":  # else both sides had equal bits, and nobody asked the definition
        (note,) = check.tally.notes
        assert "the definition itself overflows" in note and "first at node attention" in note


def test_a_guilty_kernel_still_is():
    registry = with_suspect(OPS["attention"], spoil)
    plan = single_op_plan(OPS["attention"], call(1), {"scale": 1.0}, backend="suspect",
                          registry=registry)
    check = CrossCheck(registry, ["reference"])
    check.run(plan)
    assert not check.tally.ok and check.tally.notes == []


def test_only_what_overflows_is_left_out():
    op = OPS["linear"]
    x = np.ones((2, 4), np.float32)
    weight = np.array([[1e38, 1e38, 1e38, 1e38], [1, 2, 3, 4], [1e38, 1e38, -1e38, -1e38]],
                      np.float32)
    x[1] *= 3
    arrays = {"x": x, "weight": weight, "bias": None}
    with np.errstate(all="ignore"):
        expected = expectations(op, arrays, {})["out"]
        single = expected.single.astype(np.float32)
    lost = int(expected.overflowed.sum())
    assert lost >= 2 and expected.overflowed[:, 1].tolist() == [False, False]
    good = compare(single, expected, op.tolerance)
    assert good.ok and good.unjudged == lost
    assert f"{lost} of 6 elements are not judged: the definition itself overflows" in good.detail
    wrong = single.copy()
    wrong[0, 1] += 1
    assert not compare(wrong, expected, op.tolerance).ok
    wrong = single.copy()
    wrong[0, 1] = np.nan
    assert not compare(wrong, expected, op.tolerance).ok


def test_inf_in_the_inputs_is_still_judged():
    op, x = OPS["add"], np.array([[1, np.inf, -2]], np.float32)
    expected = expectations(op, {"a": x, "b": x}, {})["out"]
    assert not expected.overflowed.any()
    assert compare(x + x, expected, op.tolerance).ok
    assert not compare(np.zeros_like(x), expected, op.tolerance).ok


def test_a_replay_never_calls_the_definition_wrong():
    op, arrays = OPS["attention"], call(1e20)
    with np.errstate(all="ignore"):
        out = op.reference(*arrays.values(), scale=1.0)
        capsule = Capsule("attention", {"scale": 1.0}, arrays, {"out": out},
                          dtype_names({**arrays, "out": out}), {"kernel": "cpu_numpy:attention"},
                          "test")
        done = replay(capsule, ["reference", "cpu_numpy"], Registry())
    assert all(r.ok for r in done)
    for r in done:
        assert "nan" not in f"{r.verdicts['out'].used} {r.verdicts['out'].nmse}"


def test_in_a_model(model_copy):
    folder = model_copy()
    path = folder / "model.safetensors"
    save_file({k: v * np.float32(1e20 if "layers.0.self_attn.q" in k or "layers.0.self_attn.k" in k
                                 else 1) for k, v in load_file(path).items()}, path)
    registry = with_suspect(OPS["attention"], lambda a: None)
    with models.load(folder, backend="suspect,cpu_numpy", registry=registry, max_context=32,
                     fusion=False) as model:
        check = CrossCheck(registry, ["reference"])
        with model.session.observed(check), np.errstate(all="ignore"):
            model.session.prefill([1, 40, 50], head="none")
    assert ("attention", "suspect:spoilt") not in check.tally.faults()
    assert any(note.startswith("attention: the definition itself overflows")
               for note in check.tally.notes), check.tally.notes
