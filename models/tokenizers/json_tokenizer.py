"""Runs tokenizer.json in the `tokenizers` library with the settings that transformers applies."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.errors import TokenizerError
from core.reading import parse_json
from models.json_reader import ConfigReader
from models.tokenizers.added import AddedToken, added_tokens, special_texts, token_text
from models.tokenizers.byte_fallback import is_sentencepiece
from models.tokenizers.chat_template import ChatTemplate
from models.tokenizers.class_rules import PREFIX, apply_class
from models.tokenizers.library import given_ids, given_text, library_errors
from models.tokenizers.post_processor import frame_of
from models.tokenizers.vocabulary import SPACE

_LONG = 2000  # characters, which take about a millisecond


class JsonTokenizer:
    """Runs tokenizer.json, a file or its text. Truncation, padding and dropout in it are off.

    prefix_once  where the vocabulary is SentencePiece's, its space in front of a text is not
                 repeated after special tokens
    """

    def __init__(self, source: Path | str, settings: ConfigReader, template: ChatTemplate | None,
                 *, prefix_once: bool = False) -> None:
        from tokenizers import Tokenizer as HfTokenizer
        where = settings.where if isinstance(source, str) else str(source)
        with library_errors(f"{where} cannot be read"):
            text = source if isinstance(source, str) else source.read_text(encoding="utf-8")
            data = parse_json(text)
            self._tokenizer = HfTokenizer.from_str(text)
            changed, notes = apply_class(data, settings)
            if changed:
                self._tokenizer = HfTokenizer.from_str(json.dumps(data))
        self.settings, self.template, self.notes = settings, template, notes
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        if data["model"].get("dropout"):
            self._tokenizer.model.dropout = None
        _check_stated(data, self._tokenizer, where)
        self._add(added_tokens(settings), where)
        self.splits_special = settings.get("split_special_tokens", bool, False)
        self._tokenizer.encode_special_tokens = self.splits_special
        prefix, once = settings.get(PREFIX, bool, True), prefix_once and is_sentencepiece(data)
        self.prefix_once = once and prefix
        if once:
            self._prefix_once(prefix)
        self._note_frame(data.get("post_processor"))
        self._count(data["model"].get("vocab", {}))

    def _count(self, vocabulary: Any) -> None:  # noqa: ANN401 - JSON
        self.added = self._read_added()
        self.special_tokens = {t.text: i for i, t in self.added.items() if t.special}
        ids = vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary))
        ordinary = [i for i in ids if i not in self.added]
        self.base_size = max(ordinary, default=-1) + 1
        self.size = max(self.base_size, *(i + 1 for i in self.added), 0)
        self.bos_id = self._id("bos_token")
        self.eos_id = self._id("eos_token")

    def _read_added(self) -> dict[int, AddedToken]:
        return {i: AddedToken(t.content, t.special, t.normalized, t.lstrip, t.rstrip, t.single_word)
                for i, t in self._tokenizer.get_added_tokens_decoder().items()}

    def _id(self, key: str) -> int | None:
        text = token_text(self.settings.data.get(key))
        found: int | None = self._tokenizer.token_to_id(text) if text else None
        return found

    def _add(self, stated: Mapping[int, AddedToken], where: str) -> None:
        """Add what only the settings name. BOS, EOS and the like are special."""
        from tokenizers import AddedToken as HfAdded
        there = {t.text: t for t in self._read_added().values()}
        named = dict.fromkeys(special_texts(self.settings).values())
        wanted = [replace(t, special=True) if t.text in named else t for t in stated.values()]
        known = {t.text for t in wanted}
        wanted += [replace(there.get(text, AddedToken(text)), special=True)
                   for text in named if text not in known]
        for token in wanted:
            if token.text and there.get(token.text) != token:
                self._tokenizer.add_tokens([HfAdded(**token.as_json())])
        for i, token in stated.items():
            found = self._tokenizer.token_to_id(token.text)
            if found != i:
                raise TokenizerError(f"{where}: {token.text!r} has id {found}, but "
                                     f"{self.settings.where} states {i}; the files do not belong "
                                     "together: fetch them again")

    def _prefix_once(self, prefix: bool) -> None:
        from tokenizers import decoders, normalizers, pre_tokenizers
        self._tokenizer.normalizer = normalizers.Sequence([])
        self._tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(
            replacement=SPACE, prepend_scheme="first" if prefix else "never", split=False)
        if not prefix:  # no space to take away again
            self._tokenizer.decoder = decoders.Sequence([
                decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
        said = ("legacy is false: text behind a special token gets" if prefix else
                "add_prefix_space is false: text gets")
        self.notes.append(f"{said} no space in front, as in transformers 5 (in transformers 4 "
                          "tokenizer.json alone counts)")

    def _note_frame(self, block: Any) -> None:  # noqa: ANN401 - JSON
        """Say where tokenizer_config.json asks for a BOS or EOS that tokenizer.json does not add.
        """
        if self.splits_special:
            self.notes.append("split_special_tokens is true: special tokens that a text contains "
                              "are encoded as ordinary text")
        for key, there in zip(("add_bos_token", "add_eos_token"), frame_of(block), strict=True):
            asked = self.settings.get(key, bool, None)
            if asked is not None and asked != bool(there):
                self.notes.append(
                    f"{self.settings.where}: {key} is {str(asked).lower()}, but tokenizer.json "
                    f"{'adds one' if there else 'adds none'}; tokenizer.json counts, as in "
                    "transformers 5 (transformers 4 follows the key)")

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        if given_text(text) and self.prefix_once and text.startswith((" ", SPACE)):
            text = " " + text  # Metaspace leaves out SentencePiece's space in front of a space
        with library_errors("the tokenizer cannot encode this text"):
            if len(text) <= _LONG:
                return list(self._tokenizer.encode(text, add_special_tokens=not special).ids)
            # `encode` holds Python's lock until it returns: a server would stand still meanwhile
            return list(self._tokenizer.encode_batch_fast(
                [text], add_special_tokens=not special)[0].ids)

    def decode(self, ids: Sequence[int]) -> str:
        with library_errors("the tokenizer cannot decode its own ids"):
            return str(self._tokenizer.decode(given_ids(ids), skip_special_tokens=True))

    def token(self, i: int) -> str | None:
        (i,) = given_ids([i])
        with library_errors("the tokenizer cannot name its own ids"):
            found: str | None = self._tokenizer.id_to_token(i) if 0 <= i < self.size else None
        return found

    def to_json(self) -> str:
        """Return the text of tokenizer.json."""
        return str(self._tokenizer.to_str())


def _check_stated(data: Mapping[str, Any], tokenizer: Any, where: str) -> None:  # noqa: ANN401
    """Raise TokenizerError where the library numbered an added token anew: its id is not the next.
    """
    for entry in data.get("added_tokens") or ():
        found = tokenizer.token_to_id(entry["content"])
        if found != entry["id"]:
            raise TokenizerError(
                f"{where} states id {entry['id']} for {entry['content']!r}, and `tokenizers` gives "
                f"it {found}: the ids of added tokens have gaps that the vocabulary does not fill; "
                "export the model again, or fetch the file again")
