"""Holds a tokenizer's contents, independent of the file that they came from."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import IntEnum

from core.errors import TokenizerError
from models.tokenizers.added import AddedToken
from models.tokenizers.pretokenizers import find_pretokenizer


class TokenType(IntEnum):
    """Lists the kinds of token, as SentencePiece and GGUF's `tokenizer.ggml.token_type` do."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


_KINDS = {int(kind) for kind in TokenType}
SPACE = "\u2581"  #: what stands for a space in SentencePiece


@dataclass
class Vocabulary:
    """Holds tokens by id. `bpe`: byte-level tokens and merges; otherwise pieces and scores.

    pre        for `bpe`, a name that `pretokenizers` knows
    legacy     see SentencePieceTokenizer
    added      flags of the CONTROL and USER_DEFINED tokens that are not plain
    templates  sources of the chat templates by name; the usual one is `default`
    """

    bpe: bool
    tokens: list[str]
    types: list[int]
    scores: list[float] = field(default_factory=list)
    merges: list[tuple[str, str]] = field(default_factory=list)
    pre: str = ""
    bos_id: int | None = None
    eos_id: int | None = None
    unk_id: int | None = None
    add_bos: bool = False
    add_eos: bool = False
    add_space_prefix: bool = True
    legacy: bool = True
    added: dict[int, AddedToken] = field(default_factory=dict)
    templates: dict[str, str] = field(default_factory=dict)

    def check(self, where: str) -> None:
        """Raises TokenizerError for lengths or ids that do not belong together, and for values that
        are none of a vocabulary."""
        count = len(self.tokens)
        if not count:
            raise TokenizerError(f"{where}: the vocabulary is empty")
        for what, values in (("token types", self.types), ("scores", self.scores)):
            if len(values) != count and (values or what == "token types"):
                raise TokenizerError(f"{where}: {count} tokens but {len(values)} {what}")
        for what, value in (("BOS", self.bos_id), ("EOS", self.eos_id), ("unknown", self.unk_id)):
            if value is not None and not 0 <= value < count:
                raise TokenizerError(f"{where}: the {what} id is {value}, the vocabulary has "
                                     f"{count} tokens")
        odd = next((i for i, kind in enumerate(self.types) if kind not in _KINDS), None)
        if odd is not None:
            raise TokenizerError(f"{where}: token {odd} has type {self.types[odd]}, expected "
                                 f"{min(_KINDS)} to {max(_KINDS)}")
        if not all(map(math.isfinite, self.scores)):
            raise TokenizerError(f"{where}: a score is not a finite number; the file is damaged: "
                                 "fetch it again")
        for name, adds, i in (("BOS", self.add_bos, self.bos_id),
                              ("EOS", self.add_eos, self.eos_id)):
            if adds and i is None:
                raise TokenizerError(f"{where}: {name} is added to texts, and no {name} id is "
                                     "stated; convert the model again")
        if self.bpe:
            find_pretokenizer(self.pre, where)

    @property
    def variables(self) -> dict[str, str]:
        """Return what a chat template may refer to."""
        ids = {"bos_token": self.bos_id, "eos_token": self.eos_id, "unk_token": self.unk_id}
        return {name: self.tokens[i] for name, i in ids.items() if i is not None}

    def added_tokens(self) -> dict[int, AddedToken]:
        """Return every CONTROL and USER_DEFINED token with its flags."""
        return {i: self.added.get(i) or AddedToken(self.tokens[i], kind == TokenType.CONTROL)
                for i, kind in enumerate(self.types)
                if kind in (TokenType.CONTROL, TokenType.USER_DEFINED) and self.tokens[i]}
