"""Check what a caller says of sampling, before anything is computed."""

from __future__ import annotations

import numbers
from collections.abc import Callable
from typing import Any

import numpy as np

from core.errors import OptionError
from core.reading import shown


def check_sampling(max_new_tokens: object, temperature: object, top_k: object, top_p: object,
                   min_p: object, repetition_penalty: object, seed: object, stop: object,
                   ) -> tuple[str, ...]:
    """Return the stop strings. Raises OptionError for a value that cannot be used; numbers may be
    NumPy's."""
    tiny, huge = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
    rules: tuple[tuple[str, object, type, Callable[[Any], bool], str], ...] = (
        ("max_new_tokens", max_new_tokens, numbers.Integral, lambda v: v >= 1, "at least 1"),
        ("temperature", temperature, numbers.Real, lambda v: v == 0 or tiny <= v <= huge,
         "0 (greedy) or a positive float32"),
        ("top_k", top_k, numbers.Integral, lambda v: 0 <= v < 2**31, "0 (off) or more"),
        ("top_p", top_p, numbers.Real, lambda v: 0 < v <= 1, "above 0, at most 1 (off)"),
        ("min_p", min_p, numbers.Real, lambda v: 0 <= v <= 1, "0 (off) to 1"),
        ("repetition_penalty", repetition_penalty, numbers.Real, lambda v: tiny <= v <= huge,
         "a positive float32; 1 is off"),
        ("seed", 0 if seed is None else seed, numbers.Integral, lambda v: True, "an integer"))
    for name, value, kind, ok, expected in rules:
        if not isinstance(value, kind) or isinstance(value, bool) or not ok(value):
            raise OptionError(f"{name} is {shown(value)}, expected {expected}")
    texts = (stop,) if isinstance(stop, str) else stop
    if not isinstance(texts, (list, tuple, set, frozenset)) or not all(
            isinstance(t, str) and t for t in texts):
        raise OptionError(f"stop is {shown(stop)}, expected texts that are not empty")
    return tuple(texts)


def check_flags(**flags: object) -> None:
    """Raises OptionError for a flag that is neither True nor False."""
    for name, value in flags.items():
        if not isinstance(value, (bool, np.bool_)):
            raise OptionError(f"{name} is {shown(value)}, expected True or False")
