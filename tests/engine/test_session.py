"""Sessions: interrupted, reused and queued steps leave the sequence whole."""

import numpy as np
import pytest

import models
from core.errors import LifetimeError, OptionError, PromptError
from core.runtime.step import Sampling


class InterruptingPrefill:
    def run(self, plan):
        plan.run()
        raise KeyboardInterrupt


def test_reuse_trusts_only_what_is_cached(story):
    """After other ids were computed, or a prefill was cut, a shared prefix is not assumed."""
    prompt = "One day a little fox went out"
    expected = story.generate(prompt, max_new_tokens=8).run().tokens
    story.logits(story.encode("The cat and the dog were friends"))
    assert story.generate(prompt, max_new_tokens=8, reuse=True).run().tokens == expected
    with story.session.observed(InterruptingPrefill()):
        generation = story.generate("The cat and", reuse=True)
        with pytest.raises(KeyboardInterrupt):
            generation.run()
        assert generation.finish_reason == "interrupted"
    assert story.generate(prompt, max_new_tokens=8, reuse=True).run().tokens == expected


def test_a_step_needs_a_prefill(story):
    story.session.truncate(0)
    with pytest.raises(LifetimeError, match="prefill a prompt first"):
        story.session.step()


@pytest.mark.parametrize("prompt", [[1.5], b"ab", [], "", [10**9], "\ud800"])
def test_prompts_are_checked(story, prompt):
    with pytest.raises(PromptError):
        story.generate(prompt)


def test_two_generations_at_once_are_refused(story):
    first = iter(story.generate("Once upon a time", max_new_tokens=40))
    next(first)
    expected = story.generate("The", max_new_tokens=10).run().tokens
    with pytest.raises(LifetimeError, match="another generation has started"):
        list(first)
    assert story.generate("The", max_new_tokens=10).run().tokens == expected


def test_steps_may_be_queued_ahead(story, monkeypatch):
    expected = story.generate("Once upon a time", max_new_tokens=400).run()
    waiting = []

    def read_later(tensor):
        waiting.append(value := tensor.numpy().copy())
        return lambda: waiting.pop(0) if waiting[0] is value else pytest.fail("out of order")
    backend = story.session._backend
    monkeypatch.setattr(backend, "read_later", read_later, raising=False)
    monkeypatch.setattr(backend, "run_ahead", 3, raising=False)
    generation = story.generate("Once upon a time", max_new_tokens=400).run()
    assert len(waiting) == 2 and generation.tokens == expected.tokens
    waiting.clear()
    with models.load("stories-llama2", max_context=12) as small:  # no step beyond the context
        tokens = small.generate("Once upon a time", max_new_tokens=400).run().tokens
    assert tokens == expected.tokens[:8] and waiting == []


class Interrupting:
    def __init__(self, after):
        self.left = after

    def run(self, plan):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        plan.run()


def test_ctrl_c_keeps_what_was_generated(story):
    whole = story.generate("Once upon a time", max_new_tokens=40).run()
    with story.session.observed(Interrupting(after=10)):
        generation = story.generate("Once upon a time", max_new_tokens=40)
        with pytest.raises(KeyboardInterrupt):  # a loop over prompts ends too
            generation.run()
    assert generation.finish_reason == "interrupted"
    assert generation.tokens == whole.tokens[:9] and whole.text.startswith(generation.text)
    assert generation.text

    def show(piece):
        raise KeyboardInterrupt
    generation = story.generate("Once")
    with pytest.raises(KeyboardInterrupt):
        generation.stream(show)
    assert generation.finish_reason == "interrupted"


def test_a_shared_prefix_is_not_computed_again(story):
    first = story.generate("Once upon a time", max_new_tokens=10).run()
    ids = [*first.prompt_ids, *first.tokens, *story.encode("Then")[1:]]
    fresh = story.generate(ids, max_new_tokens=10).run()
    story.generate("Once upon a time", max_new_tokens=10).run()
    reused = story.generate(ids, max_new_tokens=10, reuse=True).run()
    assert reused.tokens == fresh.tokens
    assert reused.stats.prompt_tokens == len(ids) - (len(first.prompt_ids) + 9)
    assert story.generate(ids, max_new_tokens=2, reuse=True).run().stats.prompt_tokens == 1


@pytest.mark.parametrize("options", [
    dict(max_new_tokens=0), dict(temperature=-1.0), dict(top_k=-1), dict(top_p=0.0),
    dict(top_p=1.5), dict(min_p=2.0), dict(repetition_penalty=0.0), dict(temperature=float("nan")),
    dict(max_new_tokens=2.5), dict(seed=1.5), dict(stop=[""])])
def test_sampling_options_are_checked(story, options):
    with pytest.raises(OptionError, match=next(iter(options))):
        story.generate("Once", **options)


def test_activations_share_memory(story):
    plan = story.session.plans[0]
    peak, total = plan.activation_bytes
    assert 0 < peak < total / 4
    assert Sampling().kind == "argmax"


@pytest.mark.parametrize("name", ["stories-llama2", "stories-qwen2"])
@pytest.mark.parametrize(("options", "most"), [
    (dict(quantize="int8"), 0.05), (dict(quantize="int4"), 0.5), (dict(kv_dtype="i8"), 0.05),
    (dict(kv_dtype="bf16"), 0.05), (dict(kv_dtype="f16"), 0.01)])
def test_lossy_options_stay_close(name, options, most):
    with models.load(name) as exact, models.load(name, **options) as lossy:
        ids = exact.generate("Once upon a time", max_new_tokens=40).run().tokens
        a, b = exact.logits(ids), lossy.logits(ids)
    loss = np.abs(a - b).max() / np.abs(a).max()
    assert 0 < loss < most
