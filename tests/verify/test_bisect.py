"""Any single kernel made wrong is named: by the cross-check, and by bisection."""

import numpy as np
import pytest
from suspect_backend import with_suspect

import models
from core.conformance.cases import Case, cells
from core.errors import CheckError
from core.installed.registry import default_registry
from core.ir.fusion import FusedOp
from core.ir.op import OPS
from core.runtime.run_op import single_op_plan
from core.runtime.step import Sampling
from core.verify.bisect import Outcome, bisect, smallest
from core.verify.capsules.capsule import Capsule
from core.verify.capsules.recorder import Recorder
from core.verify.capsules.replay import replay
from core.verify.crosscheck import CrossCheck
from core.verify.policies import parse_policy

default_registry()  # brings the plugins' ops into OPS
PROMPT = [1, 40, 50, 60, 70, 80]
#: what a model must be for its graph to hold the op
LOADED = {"quantized_linear": {"quantize": "int8"}, "qkv_quantized": {"quantize": "int8"},
          "add_norm_quantized_gate_up": {"quantize": "int8"}}


def player(model, greedy=True):
    """Return `play` for `bisect`: a prompt and a few steps."""
    session = model.session

    def play(observer):
        logits, tokens = [], []

        class Both:
            def run(self, plan):
                observer.run(plan)
                logits.append(np.array(plan.output("logits").numpy()))
        with session.observed(Both()):
            session.truncate(0)
            session.sample_with(Sampling() if greedy else Sampling(temperature=0.8, seed=3,
                                                                   penalty=1.3))
            session.prefill(PROMPT)
            tokens.append(session.token)
            for _ in range(3):
                tokens.append(session.step())
        return Outcome(logits, tokens, greedy)
    return play


#: ops that the story models' graphs of a single sequence have not, with an example of each
ALONE = {"softmax": "T17_D321_scale5", "pick_ids": "T7_N3", "put_tokens": "R5_N9",
         "adjust_logits": "R17_V512", "log_probs": "R5_V321_n5",
         "block_linear": "T3_N130_K768_q6_k_bias", "block_embedding": "T17_V33_D896_q5_0",
         "quantized_embedding": "T17_V40_D100_g64_zeros"}


@pytest.mark.parametrize("name", [n for n in OPS if n not in ALONE])
def test_a_wrong_kernel_is_named(name):
    op, greedy = OPS[name], name != "sample"
    registry = with_suspect(op)
    with models.load("stories-llama2", backend="cpu_numpy", registry=registry, max_context=32,
                     fusion=not isinstance(op, FusedOp), **LOADED.get(name, {})) as good:
        check = CrossCheck(registry, ["suspect,cpu_numpy"])
        player(good, greedy)(check)
        found = bisect(player(good, greedy), parse_policy("suspect,cpu_numpy", registry))
    if isinstance(op, FusedOp):  # no single node of the other graph is computed by it
        with models.load("stories-llama2", backend="suspect,cpu_numpy", registry=registry,
                         max_context=32, **LOADED.get(name, {})) as bad:
            check = CrossCheck(registry, ["cpu_numpy"])
            player(bad)(check)
    assert list(check.tally.faults()) == [(name, "suspect:spoilt")], check.tally.rows
    assert found.guilty(check.tally.faults()) == [(name, "suspect:spoilt")], found
    around = {k[0] for k in found.kernels}  # where it changes hands, a fused kernel and its parts
    assert around == {name} or any(isinstance(OPS[o], FusedOp) for o in around), found
    assert found.carried >= found.total / 2 and len(found.nodes) <= 6, found


@pytest.mark.parametrize("name", ALONE)
def test_a_wrong_kernel_of_no_model_is_named(name):
    op, registry = OPS[name], with_suspect(OPS[name])
    case = next(Case(op, "cpu_numpy", cells(op)[0], e) for e in op.examples()
                if e.name == ALONE[name])
    start = case.arrays[op.sig.mutated[0]].copy() if op.sig.mutated else None
    plan = single_op_plan(op, case.arrays, case.attrs, backend="cpu_numpy", registry=registry)

    def play(observer):
        if start is not None:
            plan.output(op.sig.mutated[0]).write(start)
        observer.run(plan)
        return Outcome([np.array(plan.output(op.result_names[0]).numpy())], [])
    check = CrossCheck(registry, ["suspect"])
    play(check)
    assert list(check.tally.faults()) == [(name, "suspect:spoilt")]
    found = bisect(play, parse_policy("suspect", registry))
    assert found.kernels == [(name, f"cpu_numpy:{name}", "suspect:spoilt")]
    assert found.nodes == [name]


@pytest.mark.parametrize("name", ["attention", "kv_cache_write", "argmax"])
def test_stopping_at_the_first_wrong_call_leaves_it_in_a_capsule(name, tmp_path):
    registry = with_suspect(OPS[name])
    recorder = Recorder(tmp_path)
    with models.load("stories-llama2", backend="suspect,cpu_numpy", registry=registry,
                     max_context=32) as bad:
        check = CrossCheck(registry, ["cpu_numpy"], stop=True, recorder=recorder)
        with pytest.raises(CheckError, match=r"suspect:spoilt is wrong.*outlier: suspect:spoilt"):
            player(bad)(check)
    (path,) = recorder.written
    capsule = Capsule.read(path)
    recorded, wrong, right = replay(capsule, ["suspect", "cpu_numpy"], registry)
    assert not recorded.ok and not wrong.ok and wrong.same_bits and right.ok
    assert capsule.entry["kernel"] == "suspect:spoilt"


def test_stray_writes_into_the_cache_are_seen():
    """Compare whole caches in a prefill, not only the rows that a call may write."""
    def stray(array):
        if array.ndim == 5:
            array[1, -1, -1] = 3.0
    registry = with_suspect(OPS["kv_cache_write"], stray)
    with models.load("stories-llama2", backend="suspect,cpu_numpy", registry=registry,
                     max_context=64) as bad:
        check = CrossCheck(registry, ["cpu_numpy"])
        player(bad)(check)
    assert list(check.tally.faults()) == [("kv_cache_write", "suspect:spoilt")]


def test_ddmin_finds_the_smallest_sets():
    assert smallest(list(range(20)), lambda s: 13 in s) == [13]
    assert smallest(list(range(20)), lambda s: {3, 17} <= set(s)) == [3, 17]
    assert smallest(list(range(7)), lambda s: len(s) >= 7) == list(range(7))
    assert smallest([1], lambda s: False) == [1]
