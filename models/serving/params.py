"""Defines how a request is sampled and when it ends, with vLLM's names and defaults."""

from __future__ import annotations

import numbers
from collections.abc import Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.errors import OptionError
from core.reading import shown
from models.serving.grammar.params import StructuredOutputsParams
from models.serving.sampling_options import (
    AT_LEAST_1,
    RULES,
    Rule,
    check_flags,
    check_number,
    check_stop,
)

TEXTS = 4096  # of one prompt: as many as wait in a queue by default
LOGPROBS = 20  # tokens beside the sampled one whose log probabilities may be asked for

_LIKELIEST: Rule = (numbers.Integral, lambda v: 0 <= v <= LOGPROBS, f"0 to {LOGPROBS}, or None")
_PENALTY: Rule = (numbers.Real, lambda v: -2 <= v <= 2, "-2 to 2; 0 is off")
_ID: Rule = (numbers.Integral, lambda v: 0 <= v < 2**31, "a token id")
_BIAS: Rule = (numbers.Real, lambda v: -100 <= v <= 100, "-100 to 100")
_RULES: Mapping[str, Rule] = {
    **RULES, "n": (numbers.Integral, lambda v: 1 <= v <= TEXTS, f"at least 1, at most {TEXTS}"),
    "max_tokens": AT_LEAST_1,
    "min_tokens": (numbers.Integral, lambda v: v >= 0, "0 (off) or more"),
    "logprobs": _LIKELIEST, "prompt_logprobs": _LIKELIEST,
    "presence_penalty": _PENALTY, "frequency_penalty": _PENALTY,
    "priority": (numbers.Integral, lambda v: -2**31 <= v < 2**31, "an integer of 32 bits")}
_MAY_BE_NONE = ("seed", "max_tokens", "logprobs", "prompt_logprobs")


@dataclass(frozen=True)
class SamplingParams:
    """Say how one request is sampled. Raises OptionError for a value that cannot be used.

    n                    texts to generate of one prompt, at most 4096
    temperature          0 is greedy
    top_k, top_p, min_p  0 (or -1), 1 and 0 are off
    seed                 fixes what is sampled, on any backend and in any batch; None: random
    stop, stop_token_ids  texts and ids that end the text. They are left out of it, unless
                         `include_stop_str_in_output`
    ignore_eos           go on after the model's own end ids
    max_tokens           None: to the end of the context
    min_tokens           tokens before anything but the length may end the text
    logprobs             log probabilities of each token and of so many likeliest ones, at most 20
    prompt_logprobs      the same for the prompt
    presence_penalty, frequency_penalty  are taken from logits of tokens that the output has:
                         once, and for each time
    repetition_penalty   divides or multiplies logits of tokens that prompt or output have; 1 is off
    logit_bias           added to the logits of ids, -100 to 100
    priority             requests with a lower one are served first
    structured_outputs   the form that the text must have, a StructuredOutputsParams or a mapping of
                         its fields. The text ends when it is complete; `ignore_eos` and
                         `min_tokens` cannot be asked for besides
    """

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: str | Sequence[str] | None = None
    stop_token_ids: Collection[int] | None = None
    ignore_eos: bool = False
    max_tokens: int | None = 16
    min_tokens: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] | None = None
    include_stop_str_in_output: bool = False
    priority: int = 0
    structured_outputs: StructuredOutputsParams | Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.top_k, numbers.Integral) and self.top_k == -1:
            self._set("top_k", 0)
        for name, rule in _RULES.items():
            if (value := getattr(self, name)) is None and name in _MAY_BE_NONE:
                continue
            check_number(name, value, rule)
            self._set(name, int(value) if rule[0] is numbers.Integral else float(value))
        for name in ("ignore_eos", "include_stop_str_in_output"):
            check_flags(**{name: getattr(self, name)})
            self._set(name, bool(getattr(self, name)))
        self._set("stop", check_stop(() if self.stop is None else self.stop))
        self._set("stop_token_ids", _checked_ids(self.stop_token_ids))
        self._set("logit_bias", _checked_bias(self.logit_bias))
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise OptionError(f"min_tokens is {shown(self.min_tokens)}, expected at most "
                              f"max_tokens, {shown(self.max_tokens)}; raise max_tokens")
        form = StructuredOutputsParams.of(self.structured_outputs)
        self._set("structured_outputs", form)
        for name in ("ignore_eos", "min_tokens"):
            if form is not None and (value := getattr(self, name)):
                raise OptionError(f"{name} is {value}, and the form that {form.named} asks for "
                                  "says where the text ends; leave one of them out")

    @property
    def form(self) -> StructuredOutputsParams | None:
        """Return the form that the text must have, None for any."""
        form = self.structured_outputs
        return form if isinstance(form, StructuredOutputsParams) else None

    @classmethod
    def of(cls, params: object) -> SamplingParams:
        """Return the parameters, or the defaults for None. Raises OptionError for what is neither.
        """
        if params is not None and not isinstance(params, cls):
            raise OptionError(f"params is {shown(params)}, expected SamplingParams, one for all "
                              "prompts or a list with one for each")
        return params or cls()

    @classmethod
    def of_each(cls, params: object, count: int) -> list[SamplingParams]:
        """Return the parameters of `count` prompts, from one for all or a list with one for each.
        Raises OptionError for another number or kind."""
        each = list(params) if isinstance(params, (list, tuple)) else [params] * count
        if len(each) != count:
            raise OptionError(f"found {len(each)} SamplingParams for {count} prompts; give one for "
                              "all, or one for each")
        return [cls.of(p) for p in each]

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @property
    def penalised(self) -> bool:
        """Tell whether the logits depend on the tokens before them."""
        return (self.presence_penalty, self.frequency_penalty, self.repetition_penalty) != (0, 0, 1)

    def check_vocabulary(self, size: int) -> None:
        """Raise OptionError for ids that a vocabulary of `size` tokens lacks."""
        for name, ids in (("stop_token_ids", self.stop_token_ids), ("logit_bias", self.logit_bias)):
            if wrong := [i for i in ids or () if i >= size]:
                raise OptionError(f"{name} has {wrong[:5]}, expected ids of the vocabulary, 0 to "
                                  f"{size - 1}")

    def check_queue(self, most: int | None) -> None:
        """Raise OptionError for more texts than may wait at once, which no queue could take. None:
        any number may."""
        if most is not None and self.n > most:
            raise OptionError(f"n is {self.n}, and at most {most} texts may wait; lower n, or "
                              "raise max_queue (--max-queue)")

    def choice(self, index: int, seed: int) -> SamplingParams:
        """Return the parameters of one of the n texts. `seed` stands in where none is given; each
        text has its own."""
        own = seed if self.seed is None else self.seed
        return self.changed(n=1, seed=own + index)

    def changed(self, **values: object) -> SamplingParams:
        """Return a copy with other values of the kinds that `__post_init__` leaves. Nothing is
        checked again, which took a tenth of a request's time in HTTP."""
        found = copy(self)
        for name, value in values.items():
            found._set(name, value)
        return found


def _checked_ids(ids: object) -> tuple[int, ...]:
    if ids is None:
        return ()
    if not isinstance(ids, (list, tuple, set, frozenset, range, np.ndarray)) or (
            isinstance(ids, np.ndarray) and ids.ndim != 1):
        raise OptionError(f"stop_token_ids is {shown(ids)}, expected a list of token ids")
    for i in ids:
        check_number("an id of stop_token_ids", i, _ID)
    return tuple(int(i) for i in ids)


def _checked_bias(bias: Any) -> dict[int, float]:  # noqa: ANN401 - a user's value
    if bias is None:
        return {}
    if not isinstance(bias, Mapping):
        raise OptionError(f"logit_bias is {shown(bias)}, expected a mapping of token ids to "
                          "numbers from -100 to 100")
    for i, value in bias.items():
        check_number("an id of logit_bias", i, _ID)
        check_number(f"logit_bias[{i}]", value, _BIAS)
    return {int(i): float(value) for i, value in bias.items()}
