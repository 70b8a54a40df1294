"""Turns tokenizer.json of a SentencePiece vocabulary (TinyLlama) into pieces and scores.

transformers turns each piece into the merges that can make it, in the order of the pieces' scores;
so a piece's score is, but for its scale, minus the position of its first merge. SentencePiece joins
the best-scored pair first, so only the order counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from models.tokenizers.added import AddedToken
from models.tokenizers.vocabulary import TokenType, Vocabulary

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


def is_sentencepiece(data: Mapping[str, Any]) -> bool:
    """Tell whether the file's model falls back to bytes, as none with byte-level tokens does."""
    return bool(data["model"].get("byte_fallback")) and "<0x00>" in data["model"]["vocab"]


def from_byte_fallback(data: Mapping[str, Any], added: Mapping[int, AddedToken]) -> Vocabulary:
    """Read `data`, tokenizer.json as `tokenizers` writes it. BOS and EOS are left to the caller."""
    model = data["model"]
    ids: dict[str, int] = {**model["vocab"], **{t.text: i for i, t in added.items()}}
    count = max(ids.values()) + 1
    tokens, types = [f"[PAD{i}]" for i in range(count)], [int(TokenType.UNUSED)] * count
    unk = ids.get(model.get("unk_token") or "<unk>")
    for token, i in ids.items():
        tokens[i] = token
        types[i] = int(TokenType.BYTE if _BYTE.fullmatch(token) else TokenType.NORMAL)
    for i, entry in added.items():
        types[i] = int(TokenType.CONTROL if entry.special else TokenType.USER_DEFINED)
    if unk is not None:
        types[unk] = int(TokenType.UNKNOWN)
    scores = [0.0] * count
    made: set[str] = set()
    for merge in model["merges"]:
        token = "".join(merge) if isinstance(merge, list) else merge.replace(" ", "")
        if token not in made:
            scores[ids[token]] = -float(len(made))
            made.add(token)
    return Vocabulary(False, tokens, types, scores, unk_id=unk, legacy=not _adds_once(data),
                      add_space_prefix=_adds_space(data.get("normalizer"))
                      or _adds_space(data.get("pre_tokenizer")))


def _adds_once(data: Mapping[str, Any]) -> bool:
    """Tell whether the space is put in front of the text only, not of each part of it."""
    return (data.get("pre_tokenizer") or {}).get("prepend_scheme") == "first"


def _adds_space(block: Any) -> bool:  # noqa: ANN401 - JSON
    parts = (block or {}).get("normalizers") or (block or {}).get("pretokenizers") or [block]
    return any(p and (p.get("type") == "Prepend"
                      or (p.get("type") == "Metaspace" and p.get("prepend_scheme") != "never"))
               for p in parts)
