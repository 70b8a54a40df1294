"""Text to ids and back: SentencePiece and tokenizers' tokenizer.json behind one interface."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from core.errors import ConfigError, TokenizerError
from models.chat_template import ChatTemplate, load_template
from models.config import ConfigReader


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
    """tokenizer.json, by the `tokenizers` library."""

    def __init__(self, path: Path, settings: ConfigReader, template: ChatTemplate | None) -> None:
        from tokenizers import Tokenizer as HfTokenizer
        try:
            self._tokenizer = HfTokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception
            raise TokenizerError(f"{path} cannot be read: {error}") from None
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        self.size = max(vocabulary.values(), default=-1) + 1
        self.bos_id = vocabulary.get(_token(settings, "bos_token"))
        self.eos_id = vocabulary.get(_token(settings, "eos_token"))
        self.template = template

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=not special).ids)

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))


class SentencePieceTokenizer:
    """tokenizer.model, by the `sentencepiece` library."""

    def __init__(self, path: Path, settings: ConfigReader, template: ChatTemplate | None) -> None:
        from sentencepiece import SentencePieceProcessor
        try:
            self._processor = SentencePieceProcessor(model_file=str(path))
        except Exception as error:  # the library raises RuntimeError and OSError
            raise TokenizerError(f"{path} cannot be read: {str(error)[:200]}") from None
        p = self._processor
        self.size = int(p.get_piece_size())
        self.bos_id = p.bos_id() if p.bos_id() >= 0 else None
        self.eos_id = p.eos_id() if p.eos_id() >= 0 else None
        self.template = template
        self._add_bos = settings.get("add_bos_token", bool, True) and self.bos_id is not None
        special = {p.id_to_piece(i): i for i in range(self.size)
                   if p.is_control(i) and i != p.unk_id()}
        self._special = special
        self._split = re.compile("(" + "|".join(map(re.escape, special)) + ")") if special else None

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        if not special or self._split is None:
            ids = list(self._processor.encode(text))
            return [self.bos_id, *ids] if self._add_bos and not special else ids  # type: ignore[list-item]
        ids = []
        for part in filter(None, self._split.split(text)):
            ids += [self._special[part]] if part in self._special else self._processor.encode(part)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._processor.decode([i for i in ids if i not in self._special.values()]))


def load_tokenizer(folder: Path) -> Tokenizer:
    """tokenizer.json if there, else tokenizer.model. Raises TokenizerError if neither is."""
    settings = ConfigReader({}, str(folder / "tokenizer_config.json"))
    if (folder / "tokenizer_config.json").exists():
        try:
            settings = ConfigReader.open(folder / "tokenizer_config.json")
        except ConfigError as error:
            raise TokenizerError(str(error)) from None
    template = load_template(folder, settings)
    for name, kind in (("tokenizer.json", JsonTokenizer),
                       ("tokenizer.model", SentencePieceTokenizer)):
        if (folder / name).exists():
            return kind(folder / name, settings, template)
    raise TokenizerError(f"{folder} has no tokenizer.json and no tokenizer.model; copy the one "
                         "that the model was published with")


def _token(settings: ConfigReader, key: str) -> str:
    """A special token's text: given as a string, or as an object with `content`."""
    value: Any = settings.data.get(key)
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""
