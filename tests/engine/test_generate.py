"""Generation: tests streaming, stopping, sampling, context, interruption; sessions and their
cache."""

import itertools

import numpy as np
import pytest

import models
from core.errors import LifetimeError, PromptError
from core.runtime.step import GraphKind, step_dims
from models.tokenizers.streaming import IncrementalDecoder, StopStrings

TEXTS = ["Once upon a time", "naïve café", "日本語のテキスト", "👩‍👩‍👧‍👦 family 🏳️‍🌈",
         "a\n\n  b\tc", "𝔘𝔫𝔦", " x"]


@pytest.mark.parametrize("name", ["stories-llama2", "stories-llama3", "stories-qwen2"])
@pytest.mark.parametrize("text", TEXTS)
def test_streaming_never_breaks_a_character(name, text):
    from models.checkpoints.base import SHIPPED
    from models.tokenizers.base import load_tokenizer
    tokenizer = load_tokenizer(SHIPPED / name)
    ids = tokenizer.encode(text)
    for split in range(1, len(ids)):
        decoder = IncrementalDecoder(tokenizer.decode, ids[:split])
        pieces = [decoder.push(i) for i in ids[split:]]
        assert not any("\ufffd" in p for p in pieces)
        assert sum(map(bool, pieces)) > 1 or len(pieces) < 8  # it does stream
        prompt = tokenizer.decode(ids[:split]).rstrip("\ufffd")
        assert prompt + "".join(pieces) + decoder.flush() == tokenizer.decode(ids)


def test_invalid_bytes_are_shown_at_the_end():
    decoder = IncrementalDecoder(lambda ids: bytes(ids).decode("utf-8", "replace"))
    assert [decoder.push(b) for b in b"a\xe4\xbdz\xe4"] == ["a", "", "", "\ufffdz", ""]
    assert decoder.flush() == "\ufffd"


@pytest.mark.parametrize("pieces", [["one STOP two"], ["one ST", "OP two"], list("one STOP two")])
def test_stop_strings_may_span_pieces(pieces):
    stops = StopStrings(["STOP", "two", "STO!"])
    shown = "".join(itertools.chain(*(stops.push(p) for p in pieces if not stops.hit)))
    assert stops.hit and shown == "one "
    calm = StopStrings(["STOP"])
    assert "".join(calm.push(p) for p in ["S", "T", "ST", "x S"]) + calm.flush() == "STSTx S"


def test_greedy_story(story):
    generation = story.generate("Once upon a time", max_new_tokens=400)
    pieces = list(generation)
    assert "".join(pieces) == generation.text
    assert generation.finish_reason == "stop" and generation.tokens[-1] in story.stop_ids
    assert story.tokenizer.decode([*generation.prompt_ids, *generation.tokens]) == \
        "Once upon a time" + generation.text
    again = story.generate("Once upon a time", max_new_tokens=400).run()
    assert again.tokens == generation.tokens


def test_the_parts_of_a_generation(story):
    whole = story.generate("Once upon a time", max_new_tokens=40).run()
    assert whole.finish_reason == "length" and len(whole.tokens) == 40
    word = whole.text.split()[6]
    cut = story.generate("Once upon a time", max_new_tokens=40, stop=[word, "never"]).run()
    assert cut.finish_reason == "stop" and cut.text == whole.text[:whole.text.index(word)]
    assert whole.stats.prompt_tokens == len(whole.prompt_ids)
    assert whole.stats.decode_s > 0 and whole.stats.prefill_s > 0


def test_decoding_equals_computing_all_at_once(story):
    tokens = story.generate("Once upon a time", max_new_tokens=60).run()
    logits = story.logits([*tokens.prompt_ids, *tokens.tokens])
    assert logits.dtype == np.float32
    assert logits[len(tokens.prompt_ids) - 1:-1].argmax(-1).tolist() == tokens.tokens


@pytest.mark.parametrize("chunk", [1, 3, 7, 64])
def test_chunked_prefill_changes_nothing(story, chunk):
    ids = story.generate("Once upon a time", max_new_tokens=60).run().tokens
    with models.load("stories-llama2", chunk=chunk) as chunked:
        assert np.allclose(chunked.logits(ids), story.logits(ids), rtol=0, atol=2e-5)
        assert len(chunked.session.plans) < 6


def test_a_prompt_computes_no_more_than_its_last_row_needs(story):
    """After the last layer's attention one row goes on; a chunk without a sample ends before."""
    last = f"layers.{story.config.layers - 1}."
    graphs = {head: story.session._steps.build(GraphKind(head)).bind({**step_dims(2), "T": 7})
              for head in ("none", "last", "all")}
    rows = {head: {n.name: next(iter(n.outputs.values())).spec.shape[0] for n in graph.nodes}
            for head, graph in graphs.items()}
    assert (rows["last"][last + "attention"], rows["last"][last + "mlp_residual"]) == (7, 1)
    assert rows["all"][last + "mlp_residual"] == 7
    assert graphs["none"].nodes[-1].name == last + "kv_cache_write"
    assert last + "rope_q" not in rows["none"]


def test_seed_fixes_the_draw(story):
    def text(**options):
        return story.generate("Once", max_new_tokens=30, temperature=1.0, **options).run().tokens
    assert text(seed=1) == text(seed=1)
    assert len({tuple(text(seed=s)) for s in range(6)}) > 3
    assert text(seed=None) != text(seed=None)
    assert text(seed=2, top_k=1) == story.generate("Once", max_new_tokens=30).run().tokens


def test_sampling_equals_the_definition_applied_to_the_logits(story):
    from core import run_op
    options = dict(temperature=0.9, top_k=30, top_p=0.95, min_p=0.01, repetition_penalty=1.2)
    generation = story.generate("Once upon a time", max_new_tokens=25, seed=(5 << 32) + 9,
                                **options)
    tokens = generation.run().tokens
    logits = story.logits([*generation.prompt_ids, *tokens])[len(generation.prompt_ids) - 1:-1]
    seen = np.zeros((1, logits.shape[1]), np.int8)
    seen[0, generation.prompt_ids] = 1
    f = lambda x: np.array([x], np.float32)  # noqa: E731
    for i, row in enumerate(logits):
        seen, token = run_op(
            "sample", row[None], f(0.9), np.array([30]), f(0.95), f(0.01), f(1.2),
            np.array([[9, 5]]), np.array([len(generation.prompt_ids) + i]), seen,
            backend="reference")
        assert token[0] == tokens[i]


def test_repetition_penalty_counts_the_prompt(story):
    free = story.generate("Once upon a time", max_new_tokens=60).run().tokens
    held = story.generate("Once upon a time", max_new_tokens=60,
                          repetition_penalty=5.0).run().tokens
    assert len(set(held)) / len(held) > len(set(free)) / len(free)


def test_the_context_is_filled_to_its_last_token():
    with models.load("stories-llama2", max_context=20) as small:
        generation = small.generate("Once upon a time", max_new_tokens=100).run()
        assert generation.finish_reason == "length"
        # the token sampled last needs no place in the cache
        assert len(generation.prompt_ids) + len(generation.tokens) == 21
        with models.load("stories-llama2") as large:
            same = large.generate("Once upon a time", max_new_tokens=16).run()
        assert generation.tokens == same.tokens
        with pytest.raises(PromptError, match=r"prompt has 21 tokens, the context holds 20"):
            small.generate([1] * 21)
        full = small.generate([1] * 20, max_new_tokens=5).run()
        assert len(full.tokens) == 1 and full.finish_reason == "length"
        with pytest.raises(PromptError, match="full"):
            small.session.step()


def test_generations_may_be_made_before_others_run(story):
    expected = story.generate("One day a little fox", max_new_tokens=8).run().tokens
    first, second = story.generate("Once"), story.generate("One day a little fox", max_new_tokens=8)
    first.run()
    assert second.run().tokens == expected
    with pytest.raises(LifetimeError, match="has been run"):
        second.run()
