"""Tests the parameters of a request: vLLM's defaults, limits, and what is refused."""

from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from core.errors import OptionError
from models.serving.params import SamplingParams


def test_defaults_are_those_of_vllm():
    params = SamplingParams()
    assert (params.n, params.temperature, params.top_p, params.top_k, params.min_p) == (
        1, 1.0, 1.0, 0, 0.0)
    assert (params.max_tokens, params.min_tokens, params.seed, params.ignore_eos) == (
        16, 0, None, False)
    assert (params.presence_penalty, params.frequency_penalty, params.repetition_penalty) == (
        0.0, 0.0, 1.0)
    assert params.logprobs is None and params.prompt_logprobs is None
    assert (params.stop, params.stop_token_ids, params.logit_bias) == ((), (), {})
    assert not params.include_stop_str_in_output and not params.penalised


@pytest.mark.parametrize(("name", "value", "expected"), [
    ("n", 0, "at least 1"), ("n", 1.0, "at least 1"), ("n", True, "at least 1"),
    ("temperature", -0.1, "0 (greedy) or"), ("temperature", float("nan"), "0 (greedy) or"),
    ("temperature", float("inf"), "0 (greedy) or"), ("temperature", "1", "0 (greedy) or"),
    ("temperature", None, "0 (greedy) or"), ("temperature", False, "0 (greedy) or"),
    ("top_p", 0, "above 0"), ("top_p", 1.01, "above 0"), ("top_k", -2, "0 (off) or more"),
    ("top_k", 2**31, "0 (off) or more"), ("top_k", True, "0 (off) or more"),
    ("min_p", -0.1, "0 (off) to 1"), ("min_p", 1.1, "0 (off) to 1"),
    ("seed", 1.5, "an integer"), ("seed", True, "an integer"),
    ("max_tokens", 0, "at least 1"), ("max_tokens", -1, "at least 1"),
    ("min_tokens", -1, "0 (off) or more"), ("min_tokens", None, "0 (off) or more"),
    ("logprobs", 21, "0 to 20"), ("logprobs", -1, "0 to 20"), ("logprobs", True, "0 to 20"),
    ("prompt_logprobs", 21, "0 to 20"),
    ("presence_penalty", 2.1, "-2 to 2"), ("frequency_penalty", -2.1, "-2 to 2"),
    ("repetition_penalty", 0, "a positive float32"),
    ("ignore_eos", 1, "True or False"), ("include_stop_str_in_output", "no", "True or False"),
    ("stop", [""], "not empty"), ("stop", [1], "not empty"), ("stop", 5, "not empty"),
    ("stop", "", "not empty"), ("stop", 0, "not empty"), ("stop", False, "not empty"),
    ("stop_token_ids", [-1], "a token id"), ("stop_token_ids", [1.0], "a token id"),
    ("stop_token_ids", [True], "a token id"), ("stop_token_ids", "12", "a list of token ids"),
    ("stop_token_ids", 5, "a list of token ids"),
    ("logit_bias", {1: 101}, "-100 to 100"), ("logit_bias", {1: float("nan")}, "-100 to 100"),
    ("logit_bias", {-1: 1}, "a token id"), ("logit_bias", {"1": 1}, "a token id"),
    ("logit_bias", [1], "a mapping"), ("priority", 1.5, "an integer"),
    ("priority", 2**31, "an integer")])
def test_each_field_is_checked(name, value, expected):
    with pytest.raises(OptionError) as error:
        SamplingParams(**{name: value})
    assert name in str(error.value) and expected in str(error.value)


def test_numbers_of_numpy_become_plain():
    params = SamplingParams(
        n=np.int64(2), temperature=np.float32(0.5), top_k=np.int32(3), seed=np.uint64(2**63),
        ignore_eos=np.bool_(True), stop_token_ids=np.array([1, 2]),
        logit_bias={np.int64(4): np.float64(1)})
    assert params == SamplingParams(n=2, temperature=0.5, top_k=3, seed=2**63, ignore_eos=True,
                                    stop_token_ids=[1, 2], logit_bias={4: 1})
    kinds = {type(v) for v in (params.n, params.top_k, params.seed, *params.stop_token_ids)}
    assert kinds == {int} and type(params.temperature) is float and params.ignore_eos is True


def test_top_k_may_be_minus_1():
    assert SamplingParams(top_k=-1) == SamplingParams(top_k=0)


def test_stop_may_be_one_text():
    assert SamplingParams(stop="a b").stop == ("a b",)
    assert SamplingParams(stop=["a", "b"]).stop == ("a", "b")


def test_min_tokens_are_at_most_max_tokens():
    with pytest.raises(OptionError, match="min_tokens is 17, expected at most max_tokens, 16"):
        SamplingParams(min_tokens=17)
    assert SamplingParams(min_tokens=17, max_tokens=None).min_tokens == 17


def test_ids_are_compared_with_the_vocabulary():
    SamplingParams(stop_token_ids=[9], logit_bias={9: 1}).check_vocabulary(10)
    for name, value in (("stop_token_ids", [10]), ("logit_bias", {10: 1})):
        with pytest.raises(OptionError, match=rf"{name} has \[10\].* 0 to 9"):
            SamplingParams(**{name: value}).check_vocabulary(10)


@pytest.mark.parametrize(("given", "penalised"), [
    ({}, False), ({"presence_penalty": 0.1}, True), ({"frequency_penalty": -1}, True),
    ({"repetition_penalty": 1.1}, True), ({"logit_bias": {1: 2}}, False)])
def test_penalties_depend_on_tokens(given, penalised):
    assert SamplingParams(**given).penalised == penalised


def test_each_choice_has_a_seed_of_its_own():
    params = SamplingParams(n=3, seed=7, temperature=0.5)
    assert [params.choice(i, 99).seed for i in range(3)] == [7, 8, 9]
    assert SamplingParams(n=2).choice(1, 99) == SamplingParams(seed=100)
    assert params.choice(1, 99).n == 1 and params.choice(1, 99).temperature == 0.5


def test_parameters_cannot_change():
    with pytest.raises(FrozenInstanceError):
        SamplingParams().n = 2
