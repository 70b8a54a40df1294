"""Turn a user's prompts into ids, checked against the vocabulary."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np

from core.errors import PromptError
from core.reading import shown
from models.tokenizers.base import Tokenizer

Prompt: TypeAlias = str | Sequence[int]


def encode_prompt(prompt: Prompt, tokenizer: Tokenizer, vocab_size: int) -> list[int]:
    """Return the ids of a text or of given ids. Raises PromptError for an empty prompt, for ids
    outside the vocabulary, and for what is neither."""
    if isinstance(prompt, str):
        ids = tokenizer.encode(checked_text(prompt)) if prompt else []
    else:
        ids = _integers(prompt)
    if not ids:
        raise PromptError("the prompt is empty: give some text, or --prompt-ids")
    wrong = [i for i in ids if not 0 <= i < vocab_size]
    if wrong:
        named = [f"{i} ({text!r})" if i > 0 and (text := tokenizer.token(i)) else shown(i)
                 for i in wrong[:5]]
        raise PromptError(f"token ids [{', '.join(named)}] are outside the vocabulary: "
                          f"expected 0 to {vocab_size - 1}")
    return ids


def list_prompts(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    """Return a list of prompts: a text or a list of integers is one. Raises PromptError for what
    is no list; `encode_prompt` checks each prompt."""
    if isinstance(prompts, str):
        return [prompts]
    if not isinstance(prompts, (list, tuple, range, np.ndarray)) or (
            isinstance(prompts, np.ndarray) and not prompts.ndim):
        raise PromptError("prompts are a text, a list of integers, or a list of those, found "
                          f"{shown(prompts)}")
    listed: list[Prompt] = list(prompts)  # type: ignore[arg-type] # encode_prompt checks each
    if listed and all(isinstance(i, (int, np.integer)) for i in listed):
        return [listed]  # type: ignore[list-item] # they are ids
    return listed


def checked_text(text: str) -> str:
    """Return the text if it can be encoded. Raises PromptError for bytes that were not valid
    UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PromptError(f"the prompt is not valid UTF-8 at character {error.start}: give it in "
                          "UTF-8") from None
    return text


def _integers(prompt: object) -> list[int]:
    if isinstance(prompt, (bytes, bytearray)) or not isinstance(prompt, Iterable):
        raise PromptError(f"a prompt is a text or a list of integers, found {shown(prompt)}")
    try:
        found = list(prompt)
        ids = [operator.index(i) for i in found]
    except TypeError as error:
        raise PromptError(f"a prompt is a text or a list of integers ({error})") from None
    if odd := [i for i in found if isinstance(i, bool)]:
        raise PromptError(f"a prompt is a text or a list of integers, found {odd[0]} in it")
    return ids
