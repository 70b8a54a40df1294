"""Vocabulary: a tokenizer's contents, independent of the file that they came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from core.errors import TokenizerError


class TokenType(IntEnum):
    """As in SentencePiece's model and in GGUF's `tokenizer.ggml.token_type`."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


#: Splitting a text before byte-pair merges: GGUF's names, with the expressions that the published
#: tokenizer.json of Llama-3 and of Qwen2 contain.
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PRE_TOKENIZERS = {"llama-bpe": _WORDS + r"\p{N}{1,3}" + _REST, "qwen2": _WORDS + r"\p{N}" + _REST}


@dataclass
class Vocabulary:
    """Tokens by id. `bpe`: byte-level tokens and merges; otherwise SentencePiece pieces and scores.

    pre     for `bpe`, a key of PRE_TOKENIZERS
    template  the chat template's source
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
    add_space_prefix: bool = True
    template: str | None = None

    def check(self, where: str) -> None:
        """Raises TokenizerError for lengths or ids that do not belong together."""
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
        if self.bpe and self.pre not in PRE_TOKENIZERS:
            raise TokenizerError(f"{where}: pre-tokenizer {self.pre!r} is unknown, expected one of "
                                 f"{', '.join(PRE_TOKENIZERS)}; another one would split text in "
                                 "ways that the model has not seen")

    @property
    def variables(self) -> dict[str, str]:
        """What a chat template may refer to."""
        ids = {"bos_token": self.bos_id, "eos_token": self.eos_id, "unk_token": self.unk_id}
        return {name: self.tokens[i] for name, i in ids.items() if i is not None}
