"""Runs tokenizer.model in the `sentencepiece` library, with added tokens around it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

from models.json_reader import ConfigReader
from models.tokenizers.added import AddedToken, added_tokens, special_texts, token_text
from models.tokenizers.chat_template import ChatTemplate
from models.tokenizers.library import given_ids, given_text, library_errors
from models.tokenizers.sentencepiece_model import piece_types, without_prefix
from models.tokenizers.vocabulary import TokenType


class SentencePieceTokenizer:
    """Runs tokenizer.model, a file or its bytes.

    legacy  SentencePiece's space is put in front of every part between added tokens; otherwise
            only in front of a text that begins with ordinary characters
    prefix  `add_prefix_space` of the settings: false puts it nowhere, as in transformers 5
    """

    prefix_once = property(lambda self: self.prefix and not self.legacy)

    def __init__(self, source: Path | bytes, settings: ConfigReader,
                 template: ChatTemplate | None) -> None:
        where = settings.where if isinstance(source, bytes) else str(source)
        self.processor = p = _open(source, where)
        self.settings, self.template, self.notes = settings, template, list[str]()
        self.added = self._named(self._marked() | added_tokens(settings))
        self.special_tokens = {t.text: i for i, t in self.added.items() if t.special}
        pieces = int(p.get_piece_size())
        ordinary = (i for i in reversed(range(pieces)) if i not in self.added
                    and not p.is_unused(i))
        self.base_size = next(ordinary, -1) + 1
        self.size = max(pieces, *(i + 1 for i in self.added), 0)
        self.bos_id = self._id("bos_token", p.bos_id())
        self.eos_id = self._id("eos_token", p.eos_id())
        self.add_bos = settings.get("add_bos_token", bool, True) and self.bos_id is not None
        self.add_eos = settings.get("add_eos_token", bool, False) and self.eos_id is not None
        self.legacy = settings.get("legacy", bool, True)
        self.prefix = settings.get("add_prefix_space", bool, True)
        self._ids = {t.text: i for i, t in self.added.items()}
        self.splits_special = split = settings.get("split_special_tokens", bool, False)
        self._find = _pattern([t for t in self.added.values() if not (split and t.special)])
        if split:
            self.notes.append("split_special_tokens is true: special tokens that a text contains "
                              "are encoded as ordinary text")

    def _marked(self) -> dict[int, AddedToken]:
        """Return the model's own: control tokens, pieces of its user and, where settings come with
        it, the unknown token."""
        p, found = self.processor, {TokenType.CONTROL, TokenType.USER_DEFINED}
        if self.settings.data:
            found.add(TokenType.UNKNOWN)
        return {i: AddedToken(p.id_to_piece(i), kind != TokenType.USER_DEFINED)
                for i, kind in enumerate(piece_types(p.serialized_model_proto())) if kind in found}

    def _named(self, added: dict[int, AddedToken]) -> dict[int, AddedToken]:
        """Add the special tokens that the settings name: pieces, or new ids at the end. One that is
        there is special whatever its entry says, as in transformers."""
        ids = {t.text: i for i, t in added.items()}
        for text in dict.fromkeys(special_texts(self.settings).values()):
            if text not in ids:
                i = self._piece(text)
                ids[text] = max(self.processor.get_piece_size(), *(j + 1 for j in added), 0) \
                    if i is None else i
                added[ids[text]] = AddedToken(text)
            added[ids[text]] = replace(added[ids[text]], special=True)
        return added

    def _piece(self, text: str) -> int | None:
        i = int(self.processor.piece_to_id(text))
        return i if self.processor.id_to_piece(i) == text else None

    def _id(self, key: str, default: int) -> int | None:
        text = token_text(self.settings.data.get(key))
        found = {t.text: i for i, t in self.added.items()}.get(text) if text else None
        return found if found is not None else default if default >= 0 else None

    @cached_property
    def _bare(self) -> Any:  # noqa: ANN401 - SentencePieceProcessor
        """Return the model without the space in front of a text."""
        proto = self.processor.serialized_model_proto()
        return _open(without_prefix(proto), self.settings.where)

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        ids: list[int] = []
        start = True
        for part, token in self._parts(given_text(text)):
            if token is None:
                with library_errors("the tokenizer cannot encode this text"):
                    ids += self.processor.encode(part) if self.prefix and (
                        start or self.legacy) else self._bare.encode(part)
            else:
                ids.append(token)
            start = False
        bos, eos = ([i] if add and not special and i is not None else []
                    for add, i in ((self.add_bos, self.bos_id), (self.add_eos, self.eos_id)))
        return [*bos, *ids, *eos]

    def encode_bare(self, text: str) -> list[int]:
        """Return ids of ordinary text without SentencePiece's space in front."""
        with library_errors("the tokenizer cannot encode this text"):
            return list(self._bare.encode(given_text(text)))

    def _parts(self, text: str) -> Iterator[tuple[str, int | None]]:
        """Yield the text in pieces, with the id of each that is an added token."""
        at = 0
        for found in self._find.finditer(text) if self._find else ():
            if found.start() > at:
                yield text[at:found.start()], None
            whole = found.group()
            yield whole, self._ids[whole if whole in self._ids else whole.strip()]
            at = found.end()
        if at < len(text):
            yield text[at:], None

    def decode(self, ids: Sequence[int]) -> str:
        known = self.processor.get_piece_size()  # ids of a padded vocabulary stand for nothing
        hidden = set(self.special_tokens.values())
        shown = [i for i in given_ids(ids) if i not in hidden and (i in self.added or i < known)]
        text = ""
        for is_added, run in groupby(shown, key=self.added.__contains__):
            if is_added:
                text += "".join(self.added[i].text for i in run)
            else:
                with library_errors("the tokenizer cannot decode its own ids"):
                    whole = self.prefix and not text
                    text += str((self.processor if whole else self._bare).decode(list(run)))
        return text

    def token(self, i: int) -> str | None:
        (i,) = given_ids([i])
        if i in self.added:
            return self.added[i].text
        known = 0 <= i < self.processor.get_piece_size()
        return str(self.processor.id_to_piece(i)) if known else None


def _open(source: Path | bytes, where: str) -> Any:  # noqa: ANN401 - the library has no types
    from sentencepiece import SentencePieceProcessor
    with library_errors(f"{where} cannot be read"):
        return (SentencePieceProcessor(model_proto=source) if isinstance(source, bytes)
                else SentencePieceProcessor(model_file=str(source)))


def _pattern(tokens: Sequence[AddedToken]) -> re.Pattern[str] | None:
    """Finds any of the tokens, the longest first: one may begin another."""
    def one(token: AddedToken) -> str:
        text = re.escape(token.text)
        if token.single_word:
            text = rf"(?<!\w){text}(?!\w)"
        return r"\s*" * token.lstrip + text + r"\s*" * token.rstrip
    found = sorted((t for t in tokens if t.text), key=lambda t: len(t.text), reverse=True)
    return re.compile("|".join(map(one, found))) if found else None
