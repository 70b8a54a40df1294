"""Check what a caller says of sampling, before anything is computed."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from core.errors import OptionError
from core.reading import shown

TINY, HUGE = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)

#: the kind of a number, what holds for it, and how a message says so
Rule: TypeAlias = tuple[type, Callable[[Any], bool], str]

AT_LEAST_1: Rule = (numbers.Integral, lambda v: v >= 1, "at least 1")
RULES: Mapping[str, Rule] = {
    "temperature": (numbers.Real, lambda v: v == 0 or TINY <= v <= HUGE,
                    "0 (greedy) or a positive float32"),
    "top_k": (numbers.Integral, lambda v: 0 <= v < 2**31, "0 (off) or more"),
    "top_p": (numbers.Real, lambda v: 0 < v <= 1, "above 0, at most 1 (off)"),
    "min_p": (numbers.Real, lambda v: 0 <= v <= 1, "0 (off) to 1"),
    "repetition_penalty": (numbers.Real, lambda v: TINY <= v <= HUGE,
                           "a positive float32; 1 is off"),
    "seed": (numbers.Integral, lambda v: True, "an integer")}


def check_number(name: str, value: object, rule: Rule) -> None:
    """Raise OptionError for a value that breaks its rule; numbers may be NumPy's."""
    kind, ok, expected = rule
    if not isinstance(value, kind) or isinstance(value, bool) or not ok(value):
        raise OptionError(f"{name} is {shown(value)}, expected {expected}")


def check_stop(stop: object) -> tuple[str, ...]:
    """Return the stop strings. Raises OptionError for what is none."""
    texts = (stop,) if isinstance(stop, str) else stop
    if not isinstance(texts, (list, tuple, set, frozenset)) or not all(
            isinstance(t, str) and t for t in texts):
        raise OptionError(f"stop is {shown(stop)}, expected texts that are not empty")
    return tuple(texts)


def check_sampling(max_new_tokens: object, temperature: object, top_k: object, top_p: object,
                   min_p: object, repetition_penalty: object, seed: object, stop: object,
                   ) -> tuple[str, ...]:
    """Return the stop strings. Raises OptionError for a value that cannot be used; numbers may be
    NumPy's."""
    check_number("max_new_tokens", max_new_tokens, AT_LEAST_1)
    values = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p,
              "repetition_penalty": repetition_penalty, "seed": 0 if seed is None else seed}
    for name, value in values.items():
        check_number(name, value, RULES[name])
    return check_stop(stop)


def check_text(**texts: object) -> None:
    """Raises OptionError for what is no text, or one that UTF-8 cannot hold."""
    for name, value in texts.items():
        try:
            fits = isinstance(value, str) and value.encode() is not None
        except UnicodeEncodeError:
            fits = False
        if not fits:
            raise OptionError(f"{name} is {shown(value)}, expected a text in UTF-8")


def check_call(**functions: object) -> None:
    """Raises OptionError for what cannot be called."""
    for name, value in functions.items():
        if not callable(value):
            raise OptionError(f"{name} is {shown(value)}, expected a function")


def check_flags(**flags: object) -> None:
    """Raises OptionError for a flag that is neither True nor False."""
    for name, value in flags.items():
        if not isinstance(value, (bool, np.bool_)):
            raise OptionError(f"{name} is {shown(value)}, expected True or False")
