"""No prompt and no option of `generate` or `load` gives anything but an error of ours."""

import numpy as np
import pytest

import models
from core.errors import KernelyardError, OptionError, PromptError
from core.reading import shown


def named(value):
    """Return a test's id; an object's repr has an address in it."""
    return shown(value).partition(" at 0x")[0]


ODD = [None, "5", "", b"5", [], [5], {}, {"a": 1}, object(), 1j, float("nan"), float("inf"), -1,
       2**200, 10**5000, True, np.array([1, 2]), np.array("x"), np.datetime64("2020-01-01"),
       "\udcff", int]
NUMBERS = ("max_new_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty")


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", ODD, ids=named)
def test_a_number(story, name, value):
    if name == "max_new_tokens" and type(value) is int and value > 0:
        pytest.skip("no limit: the context ends it")
    if name != "max_new_tokens" and value is None:
        pytest.skip("not given: test_model_sampling.py")
    with pytest.raises(OptionError, match=rf"^{name} is .*, expected "):
        story.generate("Once", **{name: value})


@pytest.mark.parametrize("value", [v for v in ODD if v is not None and type(v) is not int],
                         ids=named)
def test_a_seed(story, value):
    with pytest.raises(OptionError, match=r"^seed is "):
        story.generate("Once", seed=value)


@pytest.mark.parametrize("value", [None, "", b"a", [""], {"a": 1}, ["a", 5], [None], 5, object(),
                                   np.array(["a"]), [b"a"], iter("ab")], ids=named)
def test_a_stop_text(story, value):
    with pytest.raises(OptionError, match=r"^stop is .* expected texts that are not empty"):
        story.generate("Once", stop=value)


@pytest.mark.parametrize("name", ["reuse", "allow_nonfinite"])
@pytest.mark.parametrize("value", [None, 1, "yes", []], ids=named)
def test_a_flag(story, name, value):
    with pytest.raises(OptionError, match=f"^{name} is .* expected True or False"):
        story.generate("Once", **{name: value})


@pytest.mark.parametrize("value", [None, "", [], b"Once", 5, 5.0, object(), {}, ["a"], [1.5],
                                   [None], [[1]], [-1], [10**9], [2**70], {"a": 1}, "\udcff",
                                   np.zeros((2, 2), int), np.array(5), np.array([1.5]), int],
                         ids=named)
def test_a_prompt(story, value):
    asks = [story.encode, story.logits]
    if not isinstance(value, list) or value not in (["a"], [[1]]):  # a list of prompts
        asks.append(story.generate)
    for ask in asks:
        with pytest.raises(PromptError):
            ask(value)


def test_numpys_numbers_are_numbers(story):
    plain = story.generate("Once", max_new_tokens=5, temperature=0.5, top_k=7, seed=3).run()
    numpy = story.generate(np.array(plain.prompt_ids), max_new_tokens=np.int64(5), top_k=np.int8(7),
                           temperature=np.float32(0.5), top_p=np.float64(1), seed=np.uint64(3),
                           stop=["never"]).run()
    assert numpy.tokens == plain.tokens


@pytest.mark.parametrize("name", models.LoadOptions.__dataclass_fields__)
@pytest.mark.parametrize("value", ["\udcff", b"5", {"a": 1}, object(), 1j, float("nan"), -1, [5],
                                   [None], 10**30, 10**5000, np.int64(-5), ""], ids=named)
def test_a_load_option(name, value):
    try:
        models.load("stories-llama2", **{name: value}).close()
    except KernelyardError as error:
        assert len(str(error)) < 2000


@pytest.mark.parametrize(("name", "value"), [
    ("backend", 5), ("backend", ["cpu_numpy", 5]), ("dtype", 5), ("kv_dtype", np.float16),
    ("max_context", "64"), ("max_context", 64.0), ("max_context", True), ("chunk", 8.0),
    ("chunk", "8"), ("mmap", 1), ("fusion", None), ("fusion", "no"), ("threads", "2"),
    ("backend", np.int64(1)), ("lock", 5), ("lock", True), ("keep", [None]),
    ("kernels", {"attention": "cpu_numpy"})])
def test_a_load_option_of_another_type(name, value):
    with pytest.raises(OptionError, match=rf"^{name} is .*, expected "):
        models.load("stories-llama2", **{name: value})


def test_numpys_integers_are_integers():
    with models.load("stories-llama2", max_context=np.int64(20), chunk=np.int8(5)) as model:
        assert model.session.max_context == 20
