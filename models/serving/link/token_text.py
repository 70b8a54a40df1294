"""Gives single tokens a text, for log-probabilities and lists of tokens."""

from __future__ import annotations

from models.tokenizers.base import Tokenizer
from models.tokenizers.streaming import REPLACEMENT


class TokenTexts:
    """Holds the text of each token asked for, as it stands inside a text: with its space before.

    Half a character, and a special token, have no text of their own: they are written as the
    tokenizer's file writes them, such as `<0xE2>`.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer, self._known = tokenizer, dict[int, str]()

    def __getitem__(self, token: int) -> str:
        text = self._known.get(token)
        if text is None:
            text = self._known[token] = self._find(token)
        return text

    def _find(self, token: int) -> str:
        decode = self._tokenizer.decode
        text = decode([token, token])[len(decode([token])):]
        if not text or REPLACEMENT in text:
            text = self._tokenizer.token(token) or text
        return text
