"""Follows the grammar of a sequence, and finds the tokens that may come next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from models.serving.grammar.token_bytes import token_bytes
from models.tokenizers.base import Tokenizer

_NO_TOKEN = "refused", "the model has no token that continues the grammar's text"
_PARALLEL = 8192  # ids of a vocabulary from which masks of several rows are computed at once


class _Vocabulary:
    """Tells llguidance what it asks of a tokenizer."""

    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, tokens: list[bytes], special: list[int],
                 eos: int) -> None:
        self._tokenizer, self.tokens = tokenizer, tokens
        self.special_token_ids, self.eos_token_id = special, eos

    def __call__(self, text: bytes) -> list[int]:
        return self._tokenizer.encode(text.decode("utf-8", "replace"), special=True)


class TokenMasks:
    """Holds a vocabulary as llguidance knows it.

    words  in a row of a mask, 32 ids in each
    """

    def __init__(self, tokenizer: Tokenizer, size: int, eos_ids: frozenset[int]) -> None:
        from llguidance import LLExecutor, LLTokenizer, TokenizerWrapper
        tokens, special = token_bytes(tokenizer, size)
        if not eos_ids:  # llguidance needs one: an id that no model samples
            tokens, eos_ids = [*tokens, b""], frozenset({size})
        eos = sorted(eos_ids)

        vocabulary = _Vocabulary(tokenizer, tokens, sorted({*special, *eos}), eos[0])
        self.tokenizer = LLTokenizer(TokenizerWrapper(vocabulary), n_vocab=len(tokens),
                                     eos_token=eos)
        self.words, self._width = -(-size // 32), -(-len(tokens) // 32)
        self._executor = LLExecutor() if size >= _PARALLEL else None

    def fill(self, matchers: Sequence[tuple[Any, int]], rows: int) -> np.ndarray:
        """Return a mask, i32 [rows, words], which forbids in the row of each matcher what cannot
        come next, and elsewhere nothing."""
        mask = np.full((rows, self._width), -1, np.int32)
        if self._executor is not None and len(matchers) > 1:
            self._executor.unsafe_compute_mask_ptr(list(matchers), mask.ctypes.data,
                                                   self._width * 4, rows)
        else:
            for matcher, row in matchers:
                mask[row] = np.frombuffer(matcher.compute_bitmask(), np.int32)[:self._width]
        return mask[:, :self.words]


class Grammar:
    """Holds how far the text of one sequence has come in its grammar.

    problem  the reason (`refused`: the grammar's, `error`: the computation's) and the words for
             which the sequence has to end
    """

    def __init__(self, matcher: Any, masks: TokenMasks) -> None:  # noqa: ANN401 - LLMatcher
        self.matcher, self.masks = matcher, masks
        self.problem: tuple[str, str] | None = None

    def accept(self, token: int) -> bool:
        """Take the next token. Returns whether the text is complete: nothing can follow it."""
        matcher = self.matcher
        if self.problem is None and not matcher.consume_token(token):
            self._fail(token)
        if self.problem is None and matcher.is_stopped() and not matcher.is_accepting():
            self.problem = _NO_TOKEN
        return self.problem is None and matcher.is_stopped()

    def _fail(self, token: int | None = None) -> None:
        if token is not None and self.matcher.stop_reason() == "InternalError":
            self.problem = "error", (
                f"a kernel sampled token {token}, which the grammar's mask forbids; "
                "--check reference finds the kernel")
        else:
            said = " ".join(self.matcher.get_error().replace("<non-verbose/>", "").split())[:200]
            self.problem = "refused", f"the grammar cannot be followed further: {said}"

    def check(self, allowed: np.ndarray) -> None:
        """Note a problem that has shown while the mask was made, i32 [words]. The row then allows
        everything: the next token ends the sequence."""
        if self.problem is None and self.matcher.is_error():
            self._fail()
        if self.problem is None and not allowed.any():
            self.problem = _NO_TOKEN
        if self.problem is not None:
            allowed[:] = -1


def fill_masks(grammars: Sequence[Grammar | None]) -> np.ndarray | None:
    """Return the mask of these rows, i32 [rows, words]; None where no row has a grammar.

    A grammar that cannot go on gets a `problem`, which ends its sequence with the next token.
    """
    there = [(g, row) for row, g in enumerate(grammars) if g is not None]
    if not there:
        return None
    mask = there[0][0].masks.fill([(g.matcher, row) for g, row in there], len(grammars))
    for grammar, row in there:
        grammar.check(mask[row])
    return mask
