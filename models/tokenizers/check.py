"""Compares a tokenizer that was built from a table with the table, and with its origin.

A wrong id gives fluent nonsense that nobody notices. So what is built here proves itself: each
token has its id, special ones are found in a text, and a sample of ordinary ones comes back.
"""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Iterator

from core.errors import TokenizerError
from models.tokenizers.base import Tokenizer
from models.tokenizers.streaming import REPLACEMENT
from models.tokenizers.vocabulary import TokenType, Vocabulary

SAMPLE = 256  # ordinary tokens that go to text and back
_TEXTS = ("Hello world", " a  b   c    d", "\n\n a\r\n\tb \n", "I'm they'LL it's 'S",
          "x=1234567.89", "caf\u00e9 e\u0301 \u212b",
          "\u4f60\u597d\uff0c\u4e16\u754c\u3002\u304b\u306a",
          "\U0001f680\U0001f468\u200d\U0001f469 \u0928\u092e", "\u2581a \u2581", "<s>[INST]</s>")


def check_table(tokenizer: Tokenizer, v: Vocabulary, where: str) -> None:
    """Raises TokenizerError naming the first token that is not what the table says."""
    for i, text in enumerate(v.tokens):
        if v.types[i] != TokenType.UNUSED and text and tokenizer.token(i) != text:
            raise TokenizerError(f"{where}: token {i} is {text!r} in the file, and the tokenizer "
                                 f"made of it has {tokenizer.token(i)!r}; the vocabulary repeats "
                                 "tokens or is damaged: fetch it again")
    added = v.added_tokens()
    for i, token in added.items():
        if token.normalized and any(t.text in token.text for t in added.values() if t != token):
            continue  # tokens that are found in the text as given come first
        ids = tokenizer.encode(token.text, special=True)
        if ids != [i]:
            raise TokenizerError(f"{where}: special token {token.text!r} has id {i} in the file, "
                                 f"and the tokenizer made of it encodes it as {ids}; the "
                                 "vocabulary repeats tokens or is damaged: fetch it again")
    for i in _ordinary(v):
        text = tokenizer.decode([i])
        if any(t.text in text for t in added.values()):
            continue  # such as DeepSeek's `ú`, which stands for a byte that is no text alone
        if REPLACEMENT in text or unicodedata.normalize("NFC", text) != text:
            continue
        again = tokenizer.decode(tokenizer.encode(text, special=True))
        if again != text:
            raise TokenizerError(f"{where}: token {i} is the text {text!r}, and the tokenizer made "
                                 f"of the file turns that into {again!r}; the vocabulary or its "
                                 "merges are damaged: fetch it again")


def check_same(made: Tokenizer, origin: Tokenizer, v: Vocabulary, where: str, target: str) -> None:
    """Compare what `target` will hold with the tokenizer that it was made from, on texts of its own
    tokens, and the texts that ids give. Raises TokenizerError."""
    for text in (*_TEXTS, *_mixtures(origin, v)):
        for special in (False, True):
            ids, expected = (t.encode(text, special=special) for t in (made, origin))
            if ids != expected:
                raise TokenizerError(
                    f"{where}: {target} cannot hold this tokenizer: {text[:60]!r} is "
                    f"{_around(expected, ids)}, and would become {_around(ids, expected)}; "
                    "export to hf instead")
        found, meant = (t.decode(ids) for t in (made, origin))
        if found != meant:
            raise TokenizerError(f"{where}: {target} cannot hold this tokenizer: its ids give the "
                                 f"text {meant[:60]!r}, and would give {found[:60]!r}; export to "
                                 "hf instead")


def _ordinary(v: Vocabulary) -> list[int]:
    ids = [i for i, kind in enumerate(v.types) if kind == TokenType.NORMAL and v.tokens[i]]
    return ids[::max(1, len(ids) // SAMPLE)]


def _mixtures(origin: Tokenizer, v: Vocabulary) -> Iterator[str]:
    """Make texts of ordinary tokens, and others with added tokens between them."""
    rng = random.Random(7)
    words = [text for i in _ordinary(v) if REPLACEMENT not in (text := origin.decode([i]))]
    added = [t.text for t in v.added_tokens().values()]
    for _ in range(64):
        parts = rng.choices(words or ["a"], k=6)
        yield "".join(parts)
        yield "".join(rng.choice([part, *rng.choices(added, k=1)]) if added else part
                      for part in parts)
    for text in added[:512]:
        yield f"a{text}b {text} c"


def _around(ids: list[int], other: list[int]) -> str:
    """Return the ids from the first difference on."""
    at = next((i for i, (a, b) in enumerate(zip(ids, other, strict=False)) if a != b), len(other))
    return f"{'… ' if at else ''}{ids[at:at + 6]}"
