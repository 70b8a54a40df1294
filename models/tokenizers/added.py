"""Reads what files say of the tokens that are found in a text before it is split into words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from core.errors import TokenizerError
from models.json_reader import ConfigReader

_FLAGS = ("normalized", "lstrip", "rstrip", "single_word")


@dataclass(frozen=True)
class AddedToken:
    """Holds an added token, as in `tokenizers`.

    special      hidden when ids become text
    normalized   found in the normalised text, not in the text as given
    lstrip, rstrip   takes the spaces before or after it along
    single_word  found only where no letter touches it
    """

    text: str
    special: bool = True
    normalized: bool = False
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False

    @classmethod
    def parse(cls, entry: Mapping[str, Any], where: str) -> AddedToken:
        """Read an object with `content` and flags. Raises TokenizerError."""
        special = bool(entry.get("special", False))
        flags = {name: entry.get(name, False) for name in _FLAGS}
        flags["normalized"] = entry.get("normalized", not special)
        text = entry.get("content")
        if not isinstance(text, str) or not all(type(v) is bool for v in flags.values()):
            raise TokenizerError(f"{where}: added token {dict(entry)!r} is not usable, expected "
                                 "`content` and flags that are true or false")
        return cls(text, special, **flags)

    def as_json(self) -> dict[str, Any]:
        """Return the object that `parse` reads."""
        data = asdict(self)
        return {"content": data.pop("text"), **data}

    @property
    def plain(self) -> bool:
        """Return True if only the text and `special` matter, which every format can hold."""
        return not (self.normalized or self.lstrip or self.rstrip or self.single_word)


def added_tokens(settings: ConfigReader) -> dict[int, AddedToken]:
    """Return `added_tokens_decoder` of tokenizer_config.json by id. Raises TokenizerError."""
    try:
        entries = {int(i): dict(entry)
                   for i, entry in settings.get("added_tokens_decoder", dict, {}).items()}
    except (TypeError, ValueError):
        raise TokenizerError(f"{settings.where}: added_tokens_decoder must map ids to objects with "
                             "`content` and `special`") from None
    return {i: AddedToken.parse(entry, settings.where) for i, entry in sorted(entries.items())}


def special_texts(settings: ConfigReader) -> dict[str, str]:
    """Return texts of the special tokens that the settings name: `bos_token` -> text and so on.
    Lists (`additional_special_tokens`) get a key for each text."""
    found: dict[str, str] = {}
    for key, value in settings.data.items():
        if key.endswith("_token") and (text := token_text(value)):
            found[key] = text
    for key in ("additional_special_tokens", "extra_special_tokens"):
        value = settings.data.get(key)
        if isinstance(value, Mapping):
            found |= {str(name): text for name, one in value.items() if (text := token_text(one))}
        elif isinstance(value, list):
            found |= {f"{key}.{i}": text for i, one in enumerate(value)
                      if (text := token_text(one))}
    return found


def token_text(value: object) -> str:
    """Return a special token's text, given as a string or as an object with `content`; else ''."""
    if isinstance(value, Mapping):
        value = value.get("content")
    return value if isinstance(value, str) else ""


def any_of(texts: Iterable[str]) -> str:
    """Return an expression for any of the texts, the longest first: one may begin another."""
    return f"(?:{'|'.join(map(re.escape, sorted(texts, key=len, reverse=True)))})"
