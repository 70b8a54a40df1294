"""Text to ids and back: SentencePiece and tokenizers' tokenizer.json behind one interface."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from core.errors import ConfigError, TokenizerError
from models.json_reader import ConfigReader
from models.tokenizers.chat_template import ChatTemplate, load_template


class Tokenizer(Protocol):
    """What generation needs. `size` is one more than the largest id."""

    size: int
    bos_id: int | None
    eos_id: int | None
    template: ChatTemplate | None

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Ids of a prompt, with BOS where the model's files ask for it. With `special` the text
        brings its own special tokens (a rendered chat template) and nothing is added."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text without special tokens. Bytes that are not valid UTF-8 (yet) become U+FFFD."""


class JsonTokenizer:
    """tokenizer.json, a file or its text, by the `tokenizers` library."""

    def __init__(self, source: Path | str, settings: ConfigReader, template: ChatTemplate | None,
                 ) -> None:
        from tokenizers import Tokenizer as HfTokenizer
        try:
            self._tokenizer = (HfTokenizer.from_str(source) if isinstance(source, str)
                               else HfTokenizer.from_file(str(source)))
        except Exception as error:  # the library raises plain Exception
            where = settings.where if isinstance(source, str) else source
            raise TokenizerError(f"{where} cannot be read: {error}") from None
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        self.size = max(vocabulary.values(), default=-1) + 1
        self.bos_id = vocabulary.get(_token(settings, "bos_token"))
        self.eos_id = vocabulary.get(_token(settings, "eos_token"))
        self.template = template

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=not special).ids)

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def to_json(self) -> str:
        """The text of tokenizer.json."""
        return str(self._tokenizer.to_str())


class SentencePieceTokenizer:
    """tokenizer.model, a file or its bytes, by the `sentencepiece` library."""

    @property
    def special_tokens(self) -> dict[str, int]:
        """Ids of the control tokens, with those that tokenizer_config.json adds."""
        return dict(self._special)

    def __init__(self, source: Path | bytes, settings: ConfigReader,
                 template: ChatTemplate | None) -> None:
        from sentencepiece import SentencePieceProcessor
        try:
            self.processor = (SentencePieceProcessor(model_proto=source)
                              if isinstance(source, bytes)
                              else SentencePieceProcessor(model_file=str(source)))
        except Exception as error:  # the library raises RuntimeError and OSError
            where = settings.where if isinstance(source, bytes) else source
            raise TokenizerError(f"{where} cannot be read: {str(error)[:200]}") from None
        p = self.processor
        self.size = int(p.get_piece_size())
        self.bos_id = p.bos_id() if p.bos_id() >= 0 else None
        self.eos_id = p.eos_id() if p.eos_id() >= 0 else None
        self.template = template
        self.add_bos = settings.get("add_bos_token", bool, True) and self.bos_id is not None
        self._special = {p.id_to_piece(i): i for i in range(self.size)
                         if p.is_control(i) and i != p.unk_id()} | _added_tokens(settings)
        self.size = max(self.size, *(i + 1 for i in self._special.values()))
        # longest first: one special token may begin another
        texts = sorted(self._special, key=len, reverse=True)
        self._split = re.compile("(" + "|".join(map(re.escape, texts)) + ")")

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        ids = [self.bos_id] if self.add_bos and not special and self.bos_id is not None else []
        for part in filter(None, self._split.split(text)):
            ids += [self._special[part]] if part in self._special else self.processor.encode(part)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        hidden = self._special.values()  # and a padded vocabulary's ids that stand for nothing
        pieces = self.processor.get_piece_size()
        return str(self.processor.decode([i for i in ids if i < pieces and i not in hidden]))


def _added_tokens(settings: ConfigReader) -> dict[str, int]:
    """Text and id of the tokens that tokenizer_config.json adds to the model's own."""
    added = settings.get("added_tokens_decoder", dict, {})
    try:
        return {str(entry["content"]): int(i) for i, entry in added.items()
                if entry.get("special", False)}
    except (AttributeError, KeyError, TypeError, ValueError):
        raise TokenizerError(f"{settings.where}: added_tokens_decoder must map ids to objects with "
                             "`content` and `special`") from None


def load_tokenizer(folder: Path, only: str | None = None) -> Tokenizer:
    """tokenizer.json if there, else tokenizer.model; or `only` one of the two. Raises
    TokenizerError if neither is there."""
    settings = ConfigReader({}, str(folder / "tokenizer_config.json"))
    if (folder / "tokenizer_config.json").exists():
        try:
            settings = ConfigReader.open(folder / "tokenizer_config.json")
        except ConfigError as error:
            raise TokenizerError(str(error)) from None
    template = load_template(folder, settings)
    if only != "tokenizer.model" and (folder / "tokenizer.json").exists():
        return JsonTokenizer(folder / "tokenizer.json", settings, template)
    if only != "tokenizer.json" and (folder / "tokenizer.model").exists():
        return SentencePieceTokenizer(folder / "tokenizer.model", settings, template)
    raise TokenizerError(f"{folder} has no tokenizer.json and no tokenizer.model; copy the one "
                         "that the model was published with")


def _token(settings: ConfigReader, key: str) -> str:
    """A special token's text: given as a string, or as an object with `content`."""
    value: Any = settings.data.get(key)
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""
