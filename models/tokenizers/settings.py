"""Reads what a folder's small files say of its tokenizer, merged as transformers merges them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.errors import ConfigError, TokenizerError
from models.json_reader import ConfigReader
from models.tokenizers.added import AddedToken, special_texts, token_text

CONFIG, SPECIAL, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"


def read_settings(folder: Path) -> tuple[ConfigReader, list[str]]:
    """Read tokenizer_config.json, and return notes. Where it has no `added_tokens_decoder`, the
    older files count: special_tokens_map.json overrides its special tokens, added_tokens.json gives
    ids.

    Raises TokenizerError for a file that is damaged.
    """
    where = str(folder / CONFIG)
    data, special = _object(folder / CONFIG), _object(folder / SPECIAL)
    if data.get("added_tokens_decoder"):
        given, other = token_text(data.get("eos_token")), token_text(special.get("eos_token"))
        notes = [] if not other or other == given else [
            f"{SPECIAL} names {other!r} as end of text and {CONFIG} {given!r}: the second counts, "
            "as it does in transformers"]
        return ConfigReader(data, where), notes
    hidden = {*special_texts(ConfigReader(special, where)).values(),
              *special_texts(ConfigReader(data, where)).values()}
    data |= {key: value for key, value in special.items()
             if value is not None and not key.endswith("_tokens")}  # lists add no ids
    settings = ConfigReader(data, where)
    entries = {}
    for text, i in _object(folder / ADDED).items():
        if type(i) is not int or i < 0:
            raise TokenizerError(f"{folder / ADDED}: {text!r} has id {i!r}, expected an integer")
        token = AddedToken(text, text in hidden, normalized=text not in hidden)
        entries[str(i)] = token.as_json()
    data["added_tokens_decoder"] = entries
    return settings, []


def _object(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        return dict(ConfigReader.open(path).data)
    except ConfigError as error:
        raise TokenizerError(str(error)) from None
