"""A grammar follows its sequence through the engine: to its end, past stop strings, preemption,
aborts and cached prefixes, and with steps in flight."""

import json

import pytest
from json_schemas import SMALL, closed

import models
from core.errors import OptionError
from core.runtime.executor import Executor
from models import SamplingParams

NAME, TEXT = "stories-llama3", "Once upon a time there was a cat"
FORM = {"json": closed(name={"type": "string", "maxLength": 12}, age=SMALL, ok={"type": "boolean"}),
        "disable_any_whitespace": True}
LIST = {"json": {"type": "array", "items": SMALL, "maxItems": 3}, "disable_any_whitespace": True}
OPTIONS = {"backend": "cpu_numpy", "max_context": 128}


@pytest.fixture(scope="module")
def engine():
    with models.load_engine(NAME, **OPTIONS, max_num_seqs=12) as engine:
        yield engine
        engine.check()
        assert engine.pool.free == engine.pool.blocks


def ask(seed=0, form=FORM, **more):
    return SamplingParams(**{"seed": seed, "max_tokens": 64, "structured_outputs": form, **more})


def ends(output):
    return [(o.text, o.finish_reason, o.stop_reason) for o in output.outputs]


def test_a_text_ends_with_its_grammar_or_its_length(engine):
    whole, cut, exact = engine.generate([TEXT] * 3, [
        ask(1), ask(1, max_tokens=9), ask(2, {"choice": ["ab"]}, max_tokens=2)])
    (text, *end), = ends(whole)
    assert end == ["stop", None] and text.endswith("}") and json.loads(text)["age"] < 100
    assert whole.outputs[0].token_ids[-1] not in engine.eos_ids, "nothing can follow: no EOS"
    assert ends(cut)[0][1:] == ("length", None) and len(cut.outputs[0].token_ids) == 9
    assert text.startswith(ends(cut)[0][0])
    assert ends(exact) == [("ab", "stop", None)], "complete with its last token"


def test_a_text_that_may_go_on_ends_with_eos(engine):
    outputs = engine.generate([TEXT] * 8, [ask(i, {"regex": "[0-9]+"}) for i in range(8)])
    for output in outputs:
        (text, reason, _), ids = ends(output)[0], output.outputs[0].token_ids
        assert text.isdigit() and (reason == "stop") == (ids[-1] in engine.eos_ids)
    assert {ends(o)[0][1] for o in outputs} >= {"stop"}


def test_stop_strings_and_ids(engine):
    (whole,) = engine.generate([TEXT], ask(1))
    text = whole.outputs[0].text
    cut, kept, complete = engine.generate([TEXT] * 3, [
        ask(1, stop='"age"'), ask(1, stop='"age"', include_stop_str_in_output=True),
        ask(1, stop="}")])
    assert ends(cut) == [(text[:text.index('"age"')], "stop", '"age"')]
    assert ends(kept) == [(text[:text.index('"age"') + 5], "stop", '"age"')]
    assert ends(complete) == [(text[:-1], "stop", "}")], "a stop string is cut off at the end too"
    last = whole.outputs[0].token_ids[-1]
    (by_id,) = engine.generate([TEXT], ask(1, stop_token_ids=[last]))
    assert by_id.outputs[0].stop_reason == last and text.startswith(by_id.outputs[0].text)


def test_each_of_n_texts_has_a_grammar_of_its_own(engine):
    (output,) = engine.generate([TEXT], ask(10, n=3))
    alone = [engine.generate([TEXT], ask(10 + i))[0] for i in range(3)]
    assert ends(output) == [ends(a)[0] for a in alone]
    assert len({text for text, _, _ in ends(output)}) > 1
    assert all(json.loads(text) for text, _, _ in ends(output))


def test_preemption_by_recompute(engine):
    """Give the cache room for 1.2 of them: tokens stay as they are."""
    expected = engine.generate([TEXT] * 5, [ask(i) for i in range(5)])
    with models.load_engine(NAME, **OPTIONS, max_num_seqs=6, max_num_batched_tokens=16,
                            kv_blocks=8) as small:
        found = small.generate([TEXT] * 5, [ask(i) for i in range(5)])
        assert small.stats.preemptions > 0
        small.check()
    assert [ends(o) for o in found] == [ends(o) for o in expected]


def test_aborts_and_cached_prefixes(engine):
    expected = engine.generate([TEXT * 3] * 6, [ask(i) for i in range(6)])
    for i in range(6):
        engine.add_request(str(i), TEXT * 3, ask(i))
    done, steps = {}, 0
    while engine.has_unfinished_requests:
        done |= {o.request_id: o for o in engine.step() if o.finished}
        steps += 1
        if steps < 4:
            engine.abort_request(str(steps * 2 - 1))
    assert sorted(done) == ["0", "2", "4"]
    for name, output in done.items():
        assert output.cached_tokens > 0 and ends(output) == ends(expected[int(name)])


def test_with_two_steps_in_flight(engine, monkeypatch):
    """Queue no step of a constrained row before its token is known; others run ahead."""
    params = [ask(0), SamplingParams(seed=1, max_tokens=30), ask(2), ask(3, LIST, logprobs=2,
                                                                         repetition_penalty=1.1)]
    expected = engine.generate([TEXT] * 4, params)
    monkeypatch.setattr(Executor, "run_ahead", 2)
    found = engine.generate([TEXT] * 4, params)
    assert [o.outputs[0].token_ids for o in found] == [o.outputs[0].token_ids for o in expected]
    json.loads(found[3].outputs[0].text)


def test_logits_are_changed_before_the_mask(engine):
    """A bias or a penalty cannot lead out of the grammar; log-probabilities are those before it."""
    ids = engine.tokenizer.encode("yes no", special=True)
    (output,) = engine.generate([TEXT], ask(
        1, {"choice": ["red", "blue"]}, logit_bias=dict.fromkeys(ids, 100.0), logprobs=3))
    assert output.outputs[0].text in ("red", "blue")
    tokens, entries = output.outputs[0].token_ids, output.outputs[0].logprobs
    assert all(e[t].rank >= 1 for e, t in zip(entries, tokens, strict=True))
    assert any(e[t].rank > 3 for e, t in zip(entries, tokens, strict=True))


def test_a_limit_of_the_grammar_ends_its_request_alone(engine):
    """Go beyond what may be computed for one step."""
    costly = ask(0, {"regex": "((a{1000}){1000}){1000}"}, max_tokens=100)
    engine.add_request("costly", TEXT, costly)
    engine.add_request("other", TEXT, ask(1))
    done = {}
    while engine.has_unfinished_requests:
        done |= {o.request_id: o for o in engine.step() if o.finished}
    assert ends(done["other"])[0][1] == "stop"
    if done["costly"].outputs[0].finish_reason != "length":
        assert done["costly"].outputs[0].finish_reason == "refused"
        with pytest.raises(OptionError, match=r"^prompt 0: the grammar cannot be followed further"):
            engine.generate([TEXT], costly)


def test_a_token_that_the_mask_forbids_is_an_error(engine, monkeypatch):
    """Let a kernel ignore the mask."""
    monkeypatch.setattr("models.serving.batches.adjust.fill_masks", lambda grammars: None)
    engine.add_request("a", TEXT, ask(0, temperature=0))
    while engine.has_unfinished_requests:
        (*_, output) = engine.step() or [None]
    (_, reason, why), = ends(output)
    assert reason == "error" and "which the grammar's mask forbids" in why
