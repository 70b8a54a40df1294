"""No argument of an engine, of SamplingParams or of a list of prompts gives anything but an error
of ours, and none of them ends the engine."""

import numpy as np
import pytest

import models
from core.errors import KernelyardError, OptionError, PromptError
from models.engine.options import SEQUENCES, EngineOptions, LoadOptions
from models.serving.params import TEXTS, SamplingParams

ODD = {"None": None, "text": "5", "no text": "", "bytes": b"5", "no list": [], "list": [5],
       "dict": {"a": 1}, "object": object(), "complex": 1j, "nan": float("nan"),
       "inf": float("inf"), "-1": -1, "2**200": 2**200, "10**5000": 10**5000, "True": True,
       "half": 1.5, "type": int,
       "array": np.array([1, 2]), "array of texts": np.array(["a"]), "0-d": np.array(1),
       "0-d text": np.array("x"), "masked": np.ma.masked, "date": np.datetime64("2020-01-01"),
       "NaT": np.datetime64("NaT", "s"), "surrogate": "\udcff", "NUL": "\0", "long": "x" * 10_000}
ONE = SamplingParams(max_tokens=1)
odd = pytest.mark.parametrize("value", ODD.values(), ids=ODD)


@pytest.fixture(scope="module")
def engine():
    with models.load_engine("stories-llama2", max_context=64, max_num_seqs=4) as opened:
        yield opened


def ours(ask):
    """Return what `ask` gives, None where it raises an error of ours, which fits on a screen."""
    try:
        return ask()
    except KernelyardError as error:
        assert 20 < len(str(error)) < 2000
        return None


def serve(engine, name, prompt="a", params=ONE, **how):
    engine.add_request(name, prompt, params, **how)
    done = []
    while engine.has_unfinished_requests:
        done += engine.step()
    assert done[-1].finished
    return done


@odd
@pytest.mark.parametrize("name", SamplingParams.__dataclass_fields__)
def test_a_field_of_the_parameters(engine, name, value):
    params = ours(lambda: SamplingParams(**{"max_tokens": 1, name: value}))
    if params is not None and params.max_tokens is not None:
        ours(lambda: serve(engine, "field", params=params))
    engine.check()


@odd
def test_what_the_parameters_hold(value):
    ours(lambda: SamplingParams(stop=["a", value]))
    ours(lambda: SamplingParams(stop_token_ids=[1, value]))
    ours(lambda: SamplingParams(logit_bias={1: value}))


@odd
def test_a_request(engine, value):
    for name, how in (("prompt", {"prompt": value}), ("ids", {"prompt": [1, value]}),
                      ("params", {"params": value}), ("salt", {"salt": value}),
                      ("streams", {"streams": value})):
        ours(lambda name=name, how=how: serve(engine, name, **how))
        assert not engine.has_unfinished_requests, name
    ours(lambda: serve(engine, value))
    assert serve(engine, "after")


@odd
def test_a_list_of_prompts(engine, story, value):
    for prompts in (value, [value], ["a", value], [[1], value], [[value]]):
        ours(lambda prompts=prompts: engine.generate(prompts, ONE))
        ours(lambda prompts=prompts: story.generate(prompts, max_new_tokens=1))
    for params in (value, [value], [ONE, value]):
        ours(lambda params=params: engine.generate(["a"], params))
    assert not engine.has_unfinished_requests
    for name in ("temperature", "seed", "stop", "max_new_tokens", "reuse"):
        ours(lambda name=name: story.generate(["a"], **{"max_new_tokens": 1, name: value}))


@pytest.mark.parametrize(("how", "error", "said"), [
    ({"request_id": 5}, OptionError, "request_id is 5, expected a text"),
    ({"request_id": "\udcff"}, OptionError, "request_id is .* expected a text in UTF-8"),
    ({"salt": b"a"}, OptionError, "salt is b'a', expected a text"),
    ({"streams": 1}, OptionError, "streams is 1, expected True or False"),
    ({"params": {"n": 2}}, OptionError, "params is {'n': 2}, expected SamplingParams"),
    ({"prompt": np.array(1)}, PromptError, "a text or a list of integers"),
    ({"prompt": [True, 3]}, PromptError, "a text or a list of integers, found True in it")])
def test_an_argument_of_add_request(engine, how, error, said):
    with pytest.raises(error, match=said):
        engine.add_request(**{"request_id": "a", "prompt": "a", "params": ONE, **how})
    assert not engine.has_unfinished_requests


def test_arguments_of_generate(engine):
    for prompts in (5, None, b"abc", np.array(5), {"a": 1}):
        with pytest.raises(PromptError, match=r"^prompts are a text, a list of integers, or"):
            engine.generate(prompts)
    with pytest.raises(OptionError, match=r"^progress is 5, expected a function"):
        engine.generate(["a"], progress=5)
    assert engine.generate(np.array([1, 2]), ONE)[0].prompt_token_ids == [1, 2]


def test_a_list_may_be_longer_than_the_queue():
    """The queue's bound keeps many callers in bounds; more texts of a prompt than it holds could
    never be taken."""
    with models.load_engine("stories-llama2", max_context=16, max_num_seqs=2, max_queue=3) as small:
        assert len(small.generate([[1]] * 9, ONE)) == 9
        assert len(small.generate([[1]], SamplingParams(n=4, max_tokens=1))[0].outputs) == 4
        with pytest.raises(OptionError, match="n is 4, and at most 3 texts may wait"):
            small.add_request("a", [1], SamplingParams(n=4))
        small.check()
        assert not small.has_unfinished_requests


def test_an_error_says_which_prompt_is_meant(engine, story):
    for prompts, error, said in (
            (["a", "b " * 99, "c"], PromptError, "^prompt 1: the prompt has .* tokens"),
            ([[1], [2], [-5]], PromptError, "^prompt 2: token ids .* are outside"),
            (["a", ""], PromptError, "^prompt 1: the prompt is empty"),
            (["a" * 999], PromptError, "^the prompt has .* tokens")):
        with pytest.raises(error, match=said):
            engine.generate(prompts)
    with pytest.raises(OptionError, match=r"^prompt 0: logit_bias has"):
        engine.generate(["a", "b"], SamplingParams(logit_bias={10**6: 1}))
    with pytest.raises(PromptError, match=r"^prompt 1: the prompt is empty"):
        story.generate(["a", ""])
    assert not engine.has_unfinished_requests


def test_a_fingerprint_names_what_changes_bits():
    modes = [LoadOptions(**how).mode for how in (
        {}, {"dtype": "f16"}, {"quantize": "int8"}, {"quantize": "int8", "group_size": 32},
        {"quantize": "int8", "keep": ["lm_head.weight"]},
        {"quantize": "int8", "quantize_only": ["lm_head.weight"]}, {"kv_dtype": "i8"},
        {"allow_tf32": True}, {"deterministic": True}, {"batch_invariant": True})]
    assert modes[0] == "default" and modes[-1] == "batch-invariant"
    assert len(set(modes)) == len(modes)
    with models.load_engine("stories-llama2", max_context=16, kv_dtype="f16") as opened:
        assert opened.fingerprint.endswith("-kv_f16")


def test_texts_of_a_prompt_are_bounded():
    with pytest.raises(OptionError, match=f"^n is .*, expected at least 1, at most {TEXTS}"):
        SamplingParams(n=TEXTS + 1)
    assert SamplingParams(n=TEXTS).n == TEXTS


@odd
@pytest.mark.parametrize("name", EngineOptions.__dataclass_fields__)
def test_an_option_of_an_engine(name, value):
    ours(lambda: models.load_engine("stories-llama2", **{
        "max_context": 64, "max_num_seqs": 2, name: value}).close())


@pytest.mark.parametrize("name", ["registry", "engine_options", "options"])
def test_an_object_of_another_type(name):
    for value in ("cpu_numpy", 5, {}, np.array([1, 2]), "x" * 10_000):
        with pytest.raises(OptionError, match=f"^{name} is ") as caught:
            models.load_engine("stories-llama2", **{name: value})
        assert len(str(caught.value)) < 500
        if name != "engine_options":
            with pytest.raises(OptionError, match=f"^{name} is "):
                models.load("stories-llama2", **{name: value})


@odd
def test_a_model(value):
    for load in (models.load, models.load_engine):
        assert ours(lambda load=load: load(value)) is None
        if not callable(value):
            with pytest.raises(OptionError, match=r"^progress is .*, expected a function"):
                load("stories-llama2", progress=value)


def test_sequences_are_bounded():
    for count in (SEQUENCES + 1, 2**31, 2**63, 2**200):
        with pytest.raises(OptionError, match=f"^max_num_seqs is .* at most {SEQUENCES}"):
            EngineOptions(max_num_seqs=count)


def test_another_sampling(story):
    for value in (None, 5, b"model", np.array(["model"]), np.array([1, 2]), ["model"]):
        with pytest.raises(OptionError, match=r"^sampling is "):
            story.generate("Once", sampling=value)
