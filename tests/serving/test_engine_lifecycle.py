"""An engine with a model: aborts, failures and interrupts leave it usable."""

import random

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import models
from core.errors import CheckError, KernelyardError, OptionError
from core.runtime.executor import Executor, Pending
from models import SamplingParams
from models.serving.batches.batching import Batching
from models.serving.scheduler import Scheduler

MODEL = "stories-llama2"
TEXT = "Once upon a time"
GREEDY = SamplingParams(temperature=0, max_tokens=8)


@pytest.fixture
def engine():
    with models.load_engine(MODEL, max_context=96, max_num_seqs=6, max_num_batched_tokens=16,
                            kv_blocks=20) as engine:
        yield engine
        unused(engine)


@pytest.fixture(scope="module")
def expected():
    with models.load(MODEL, max_context=96) as model:
        return model.generate(TEXT, max_new_tokens=8).run()


def unused(engine) -> None:
    """Fail unless nothing is held any more."""
    engine.check()
    assert not engine.has_unfinished_requests and engine.pool.free == engine.pool.blocks
    assert not engine.scheduler.has_unfinished


def usable(engine, expected) -> None:
    (output,) = engine.generate(TEXT, GREEDY)
    assert (output.outputs[0].token_ids, output.outputs[0].text) == (expected.tokens, expected.text)
    unused(engine)


def test_aborts_at_random_moments_leak_nothing(engine, expected):
    """Drop half of 200 requests while they wait, are computed, decode, or have just ended."""
    rng, seen, left = random.Random(5), dict[str, int](), 200
    finished = {}
    while left or engine.has_unfinished_requests:
        while left and rng.random() < 0.5 and len(engine.scheduler.waiting) < 4:
            left -= 1
            ids = [rng.randrange(3, 500) for _ in range(rng.choice((2, 9, 20, 40)))]
            engine.add_request(str(left), ids, SamplingParams(
                n=rng.choice((1, 1, 1, 3)), seed=left, max_tokens=rng.randrange(1, 12),
                logprobs=rng.choice((None, 2)), prompt_logprobs=rng.choice((None, None, 1))),
                streams=rng.random() < 0.5)
            if rng.random() < 0.5:  # it is to be dropped, maybe at once
                finished[str(left)] = rng.choice((0, 1, 2, 4, 8, 16))
        for name in [n for n, after in finished.items() if after == 0]:
            del finished[name]
            requests = [r for r in [*engine.scheduler.waiting, *engine.scheduler.running]
                        if r.request_id == name]
            where = requests[0].status.value if requests else "gone"
            output = engine.abort_request(name)
            seen[where] = seen.get(where, 0) + 1
            assert (output is None) == (not requests)
            assert output is None or (output.finished and all(
                o.finish_reason is not None for o in output.outputs))
        finished = {n: after - 1 for n, after in finished.items()}
        engine.step()
        engine.check()
    assert all(seen.get(where, 0) > 5 for where in ("waiting", "running", "gone")), seen
    usable(engine, expected)
    assert engine.abort_request("0") is None


def test_an_aborted_name_can_be_used_again(engine, monkeypatch):
    """Give its steps in flight to nobody: not even to a new request of that name."""
    monkeypatch.setattr(Executor, "run_ahead", 2)
    for _ in range(3):
        ids = [7, 8, 9, *range(20, 40)]
        engine.add_request("a", ids, SamplingParams(max_tokens=4, prompt_logprobs=1))
        engine.step()
        engine.abort_request("a")
        engine.add_request("a", ids[::-1], SamplingParams(temperature=0, max_tokens=4,
                                                          prompt_logprobs=1))
        found = {}
        while engine.has_unfinished_requests:
            found |= {o.request_id: o for o in engine.step()}
        assert all(token in entry for token, entry in zip(
            ids[::-1][1:], found["a"].prompt_logprobs[1:], strict=True))
    engine.add_request("b", TEXT, GREEDY)
    with pytest.raises(OptionError, match="'b' is running already"):
        engine.add_request("b", TEXT, GREEDY)
    engine.abort_request("b")


def test_nan_ends_one_request(model_copy):
    """End the request whose token has no finite embedding; the others have the right tokens, also
    in the blocks that it leaves."""
    folder = model_copy()
    tensors = load_file(folder / "model.safetensors")
    (name,) = [n for n in tensors if "embed_tokens" in n]
    tensors[name] = tensors[name].copy()
    tensors[name][300] = np.nan
    save_file(tensors, folder / "model.safetensors")
    prompts = [[5 + i, 9, 11 + i] for i in range(6)]
    asked = SamplingParams(temperature=0, max_tokens=20, logit_bias={300: -100})
    with models.load_engine(MODEL, max_context=64) as engine:
        wanted = [o.outputs[0].token_ids for o in engine.generate(prompts, asked)]
    with models.load_engine(folder, max_context=64, kv_blocks=14) as engine:
        for _ in range(3):
            for i, ids in enumerate([*prompts, [5, 300, 7] * 9]):
                engine.add_request(str(i), ids, asked, salt=str(i))
            found = {}
            while engine.has_unfinished_requests:
                found |= {o.request_id: o.outputs[0] for o in engine.step()}
            assert [found[str(i)].token_ids for i in range(6)] == wanted
            assert found["6"].finish_reason == "error" and "is nan, expected a finite" in \
                found["6"].stop_reason
            unused(engine)
        with pytest.raises(CheckError, match=r"prompt 1: .* is nan.*--check-finite"):
            engine.generate([[5, 6], [300], [7]], asked)
        unused(engine)


@pytest.mark.parametrize("where", [
    (Scheduler, "schedule"), (Batching, "batch"), (Executor, "submit"), (Scheduler, "queued"),
    (Pending, "wait"), (Scheduler, "update")], ids=lambda w: f"{w[0].__name__}.{w[1]}")
@pytest.mark.parametrize("error", [KeyboardInterrupt, KernelyardError])
def test_a_step_that_fails(engine, expected, monkeypatch, where, error):
    """End every request, and compute the next ones right."""
    for i in range(4):
        engine.add_request(f"{i}", f"{TEXT}, {'x' * i}", GREEDY)
    engine.step()
    real, calls = getattr(*where), []

    def failing(*args, **kwargs):
        calls.append(0)
        if len(calls) == 2:
            raise error
        return real(*args, **kwargs)
    monkeypatch.setattr(*where, failing)
    engine.step()
    with pytest.raises(error):
        engine.step()
    usable(engine, expected)
