"""Steps that are checked are copies: they compute what the engine computes, and touch nothing."""

import numpy as np
import pytest

import models
from core.errors import OptionError
from core.installed.registry import Registry
from core.tensor.dtype import f32
from core.tensor.host import HostAllocator
from core.tensor.tensor import Tensor
from core.verify.live import copied_steps
from core.verify.live.copied_steps import CopiedSteps, read_blocks
from models import SamplingParams
from models.serving.live.check import LiveCheck

PREFIX = [1, *range(40, 80)]
PROMPTS = [[*PREFIX, 9], [*PREFIX, 10, 11], [1, 5], [1, 6, 7]]


class Copying:
    """Submits every step, and compares its tokens with those of its copy."""

    def __init__(self, executor):
        self.executor, self.copies, self.compared = executor, CopiedSteps(executor, self), 0

    def run(self, plan):
        plan.run()
        self.tokens = plan.output("token").numpy().copy() if "token" in plan.graph.outputs else None

    def submit(self, batch):
        compute = self.copies.take(batch)
        pending = self.executor.submit(batch)
        compute()
        if self.tokens is not None:
            rows = len(batch.places)
            assert list(self.tokens[:rows]) == list(pending.wait()["token"])
            self.compared += rows
        return pending


@pytest.fixture(scope="module")
def engine():
    with models.load_engine("stories-llama2", kv_dtype="i8", max_num_seqs=3,
                            max_context=128, max_num_batched_tokens=24) as found:
        yield found


@pytest.fixture(scope="module")
def expected(engine):
    """Return the tokens without a check."""
    return tokens(engine)


def tokens(engine):
    params = SamplingParams(max_tokens=5, ignore_eos=True, temperature=0.8, seed=4,
                            presence_penalty=0.5)
    found = [o.outputs[0].token_ids for o in engine.generate(PROMPTS, params)]
    engine.check()
    return found


def test_a_copy_computes_the_same(engine, expected):
    """Chunked prompts, shared blocks, sampling, an int8 cache: sequences join and leave."""
    engine.submitter = Copying(engine.executor)
    assert tokens(engine) == expected
    assert engine.submitter.compared == 5 * len(PROMPTS)
    assert set(engine.submitter.copies._plans) == {16}, "it is as small as the step"


def test_a_check_changes_no_answer(engine, expected):
    said = []
    engine.submitter = LiveCheck(engine.executor, Registry(), ["reference"], 0.45, said.append)
    assert tokens(engine) == expected
    counts = engine.submitter.counts
    assert counts.steps > 1 and not counts.wrong and not counts.failed and said == []
    again = LiveCheck(engine.executor, Registry(), ["reference"], 0.45)
    engine.submitter = again
    tokens(engine)
    assert again.counts.steps == counts.steps, "the same steps are drawn"


def test_a_check_that_fails_changes_no_answer(engine, expected, monkeypatch):
    said = []
    check = engine.submitter = LiveCheck(engine.executor, Registry(), ["reference"], 1, said.append)
    monkeypatch.setattr(check._check, "_node", lambda *args: 1 / 0)
    assert tokens(engine) == expected
    assert check.counts.failed > 5 and check.counts.steps == 0
    assert said == ["check: a step could not be checked (ZeroDivisionError: division by zero); "
                    "the next ones that fail are counted only"]
    monkeypatch.setattr(copied_steps, "MOST_BLOCKS", 0)
    assert tokens(engine) == expected and check.counts.skipped > 5


def test_blocks_of_a_device_that_the_host_cannot_read():
    class Device(HostAllocator):
        def host_view(self, buffer):
            return None
    whole = np.arange(2 * 5 * 4 * 3, dtype=np.float32).reshape(2, 5, 4, 3)
    for allocator in (Device(), HostAllocator()):
        cache = Tensor.from_numpy(whole, allocator, f32)
        found = read_blocks(cache, np.array([4, 1]))
        assert np.array_equal(found, whole[:, [4, 1]])


@pytest.mark.parametrize("rate", [0, -1, 1.5, True, float("nan"), "1"])
def test_a_rate_is_a_share(rate):
    with pytest.raises(OptionError, match="--check-rate is"):
        LiveCheck(None, Registry(), ["reference"], rate)
