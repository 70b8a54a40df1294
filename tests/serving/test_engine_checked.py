"""An engine's steps are checked like a session's: a kernel that is wrong only where several
sequences are computed at once is named."""

import numpy as np
import pytest
from suspect_backend import with_suspect

import models
from core.ir.op import OPS
from core.verify.capsules.capsule import Capsule
from core.verify.capsules.recorder import Recorder
from core.verify.capsules.replay import replay
from core.verify.crosscheck import CrossCheck
from models import SamplingParams

PROMPTS = [[1, 40, 50], [1, 60, 70, 80, 90]]
OPTIONS = {"backend": "suspect,cpu_numpy", "fusion": False, "max_context": 64}
GREEDY = SamplingParams(max_tokens=3, ignore_eos=True, temperature=0.0)


def right(array):
    """Leave a result as the definition gives it."""


def second_sequence(ins, outs):
    """Spoil the first row of the second sequence of a batch, where there is one."""
    starts, lengths = ins[4], ins[5]
    if np.count_nonzero(lengths) > 1:
        outs[0][starts[1]] += np.float32(0.01) * np.abs(outs[0]).max()


def checked(whole, against, prompts, recorder=None):
    """Return the tally of an engine's run in which `suspect` computes attention."""
    registry = with_suspect(OPS["attention"], right, whole)
    check = CrossCheck(registry, [against], recorder=recorder)
    with models.load_engine("stories-llama3", registry=registry, max_num_seqs=2,
                            **OPTIONS) as engine:
        with engine.executor.observed(check):
            outputs = engine.generate(prompts, GREEDY)
        calls = check.tally.calls
        engine.generate(prompts[:1], GREEDY)
        assert check.tally.calls == calls  # it looks on in the block alone
    return check.tally, [o.outputs[0].token_ids for o in outputs], registry


@pytest.mark.parametrize("against", ["cpu_numpy", "reference"])
def test_a_fault_that_needs_two_sequences_is_named(against, tmp_path):
    recorder = Recorder(tmp_path)
    tally, _, registry = checked(second_sequence, against, PROMPTS, recorder)
    assert not tally.ok and set(tally.faults()) == {("attention", "suspect:spoilt")}
    (row,) = [r for r in tally.rows if r.wrong]
    assert "S 2" in row.coverage.seen()
    (path,) = recorder.written
    found = replay(Capsule.read(path), ["suspect", "cpu_numpy"], registry)
    assert [r.ok for r in found] == [False, False, True]
    assert found[1].label == "suspect:spoilt"


def test_one_sequence_does_not_show_it():
    tally, _, _ = checked(second_sequence, "reference", PROMPTS[:1])
    assert tally.ok


def test_a_right_engine_gives_the_same_tokens_while_it_is_checked():
    tally, tokens, _ = checked(None, "reference", PROMPTS)
    assert tally.ok and {"pick_ids", "put_tokens", "attention"} <= {r.op for r in tally.rows}
    with models.load_engine("stories-llama3", backend="cpu_numpy", fusion=False,
                            max_context=64) as engine:
        assert tokens == [o.outputs[0].token_ids for o in engine.generate(PROMPTS, GREEDY)]
