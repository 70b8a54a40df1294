"""Requests of an engine with a model: n texts, stop strings, log-probabilities, changed logits.

What is expected is computed in NumPy from `Model.logits`, one sequence at a time.
"""

from collections import Counter
from dataclasses import fields, replace

import numpy as np
import pytest

import models
from models import SamplingParams

MODEL = "stories-llama3"
TEXT = "Once upon a time"
DEFAULTS = {f.name: f.default for f in fields(SamplingParams)}


@pytest.fixture(scope="module")
def alone():
    with models.load(MODEL, max_context=128) as model:
        yield model


@pytest.fixture(scope="module")
def engine():
    with models.load_engine(MODEL, max_context=128, max_num_seqs=8,
                            max_num_batched_tokens=24) as engine:
        yield engine
        engine.check()
        assert engine.pool.free == engine.pool.blocks


def log_softmax(logits):
    wide = np.asarray(logits, np.float64)
    shifted = wide - wide.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def check_tokens(model, ids, params, tokens) -> None:
    """Fail unless each token is the likeliest after those before it, and the last one ends the
    text."""
    every, prompt = [*ids, *tokens], len(ids)
    stops = {*params.stop_token_ids, *model.stop_ids}
    for n, logits in enumerate(model.logits(every)[prompt - 1:-1].astype(np.float64)):
        before, output = every[:prompt + n], every[prompt:prompt + n]
        for i in set(before):
            logits[i] *= (1 / params.repetition_penalty if logits[i] > 0
                          else params.repetition_penalty)
        for i, count in Counter(output).items():
            logits[i] -= params.presence_penalty + count * params.frequency_penalty
        for i, value in params.logit_bias.items():
            logits[i] += value
        if n < params.min_tokens:
            logits[list(stops)] = -np.inf
        assert tokens[n] == int(logits.argmax()), n
        ends = tokens[n] in stops and n + 1 > params.min_tokens
        assert ends == (n + 1 == len(tokens)) or n + 1 == params.max_tokens


_CLOSE = {300: 30.0, 301: 29.5, 302: 29.0}  # tokens that are likely everywhere
CHANGES = {
    "nothing": {}, "repetition": {"repetition_penalty": 1.4},
    "presence": {"presence_penalty": 1.5, "logit_bias": _CLOSE},
    "frequency": {"frequency_penalty": 1.1, "logit_bias": _CLOSE},
    "reward": {"frequency_penalty": -1.1, "logit_bias": _CLOSE},
    "bias": {"logit_bias": {300: 9.5, 301: 8.0, 13: -100}},
    "all": {"repetition_penalty": 1.2, "presence_penalty": 0.4, "frequency_penalty": 0.3,
            "logit_bias": {40: 3.0}, "min_tokens": 9, "stop_token_ids": list(range(100, 500, 3))},
    "stop id": {"stop_token_ids": list(range(0, 640, 5))},
    "min tokens": {"min_tokens": 7, "stop_token_ids": list(range(0, 640, 2))}}


def test_changed_logits(alone, engine):
    """All kinds in one batch, each of its own prompt: rows must not be mixed up."""
    prompts = [alone.encode(f"{TEXT}{', there was' * (i % 4)} a {word}") for i, word in
               enumerate(("cat", "dog", "fox", "man", "boy", "bird", "king", "tree", "ship"))]
    params = [SamplingParams(temperature=0, max_tokens=20, **c) for c in CHANGES.values()]
    outputs = engine.generate(prompts, params)
    for change, ids, asked, output in zip(CHANGES.values(), prompts, params, outputs, strict=True):
        tokens = output.outputs[0].token_ids
        check_tokens(alone, ids, asked, tokens)
        for name in list(change)[:1]:
            with pytest.raises(AssertionError):  # what is asked shows in the tokens
                check_tokens(alone, ids, replace(asked, **{name: DEFAULTS[name]}), tokens)


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_log_probabilities(alone, engine, temperature):
    """Hold them to log-softmax of the logits before any change, of prompts in chunks too."""
    prompts = [alone.encode(TEXT + " there was a cat" * n) for n in (0, 3, 8)]
    params = [SamplingParams(temperature=temperature, seed=3, max_tokens=6, logprobs=n,
                             prompt_logprobs=n, frequency_penalty=0.5) for n in (0, 4, 20)]
    for ids, asked, output in zip(prompts, params, engine.generate(prompts, params), strict=True):
        one = output.outputs[0]
        every = [*ids, *one.token_ids]
        expected = log_softmax(alone.logits(every))
        entries = [*output.prompt_logprobs, *one.logprobs]
        assert len(output.prompt_logprobs) == len(ids) and entries[0] is None
        assert len(one.logprobs) == len(one.token_ids) == 6
        for position, entry in enumerate(entries[1:]):
            row, token = expected[position], every[position + 1]
            assert entry[token].logprob == pytest.approx(row[token], abs=1e-4)
            assert entry[token].rank == 1 + (row > row[token] + 1e-5).sum()
            top = sorted((e.rank, i) for i, e in entry.items() if e.rank <= asked.logprobs)
            assert [rank for rank, _ in top] == list(range(1, asked.logprobs + 1))
            assert [row[i] for _, i in top] == pytest.approx(
                np.sort(row)[::-1][:asked.logprobs], abs=1e-4)
        assert one.cumulative_logprob == pytest.approx(
            sum(e[t].logprob for e, t in zip(one.logprobs, one.token_ids, strict=True)))


def test_n_texts(alone, engine):
    """Give each text the tokens that its seed gives alone; the prompt is computed once."""
    ids = alone.encode(TEXT + ", there was a little cat who had no name and no home")
    params = SamplingParams(n=5, temperature=1.1, seed=40, max_tokens=10)
    before, shared = engine.stats.prompt_tokens, (len(ids) - 1) // 16 * 16
    (output,) = engine.generate([ids], params)
    assert engine.stats.prompt_tokens - before == 5 * len(ids) - 4 * shared < 5 * len(ids)
    assert [o.index for o in output.outputs] == list(range(5))
    expected = [alone.generate(ids, temperature=1.1, seed=40 + i, max_new_tokens=10).run()
                for i in range(5)]
    assert [o.token_ids for o in output.outputs] == [e.tokens for e in expected]
    assert [o.text for o in output.outputs] == [e.text for e in expected]
    assert len({tuple(o.token_ids) for o in output.outputs}) > 1
    again = engine.generate([ids], SamplingParams(n=5, temperature=1.1, max_tokens=10))
    assert len({tuple(o.token_ids) for o in again[0].outputs}) > 1, "without a seed each has one"


def test_stop_strings_cut_at_every_border(alone, engine):
    """Stop at every piece of up to 5 characters of a text: its tokens begin and end anywhere."""
    whole = alone.generate(TEXT, max_new_tokens=16).run()
    stops = {whole.text[a:b] for a in range(len(whole.text))
             for b in range(a + 1, min(a + 6, len(whole.text) + 1))}
    assert len(stops) > 60
    found = {}
    for i, stop in enumerate(sorted(stops)):
        engine.add_request(stop, TEXT, SamplingParams(temperature=0, max_tokens=16, stop=[stop]),
                           streams=bool(i % 2))
    while engine.has_unfinished_requests:
        for output in engine.step():
            assert output.request_id not in output.outputs[0].text
            found[output.request_id] = output.outputs[0]
    for stop in stops:
        one = found[stop]
        assert one.text == whole.text[:whole.text.index(stop)]
        assert (one.finish_reason, one.stop_reason) == ("stop", stop)
        assert one.token_ids == whole.tokens[:len(one.token_ids)]  # it counts those of the stop
        made = alone.tokenizer.decode(one.token_ids)
        assert stop in made and stop not in alone.tokenizer.decode(one.token_ids[:-1])
