"""Finds the bytes that each token of a vocabulary stands for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from core.errors import TokenizerError
from models.tokenizers.base import NoTokenizer, Tokenizer
from models.tokenizers.json_tokenizer import JsonTokenizer
from models.tokenizers.sentencepiece_tokenizer import SentencePieceTokenizer
from models.tokenizers.tiktoken_ranks import byte_letters
from models.tokenizers.vocabulary import SPACE

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def token_bytes(tokenizer: Tokenizer, size: int) -> tuple[list[bytes], list[int]]:
    """Return the bytes of ids 0 to size - 1, and which of them are special tokens: no text has
    those. An id that stands for nothing has no bytes. Raises TokenizerError for a tokenizer whose
    tokens have no bytes of their own."""
    if isinstance(tokenizer, SentencePieceTokenizer):
        return _pieces(tokenizer, size)
    if isinstance(tokenizer, JsonTokenizer):
        return _json_tokens(tokenizer, size)
    raise TokenizerError(tokenizer.reason if isinstance(tokenizer, NoTokenizer) else
                         f"the bytes of the tokens of a {type(tokenizer).__name__} are not known")


def _pieces(tokenizer: SentencePieceTokenizer, size: int) -> tuple[list[bytes], list[int]]:
    p, found, special = tokenizer.processor, list[bytes](), list[int]()
    known = p.get_piece_size()
    for i in range(size):
        added = tokenizer.added.get(i)
        text = tokenizer.token(i) or ""
        if added is not None:
            found.append(text.encode())
        elif i >= known or p.is_unused(i) or p.is_unknown(i) or p.is_control(i):
            found.append(b"")
        else:
            found.append(_piece(text))
        if added is not None and added.special:
            special.append(i)
    return found, special


def _json_tokens(tokenizer: JsonTokenizer, size: int) -> tuple[list[bytes], list[int]]:
    data = json.loads(tokenizer.to_json())
    kinds = {part.get("type") for part in _parts(data.get("decoder"))}
    unknown = data["model"].get("unk_token")
    if "ByteLevel" in kinds:
        to_byte = {letter: byte for byte, letter in enumerate(byte_letters())}

        def ordinary(text: str) -> bytes:
            if all(c in to_byte for c in text):
                return bytes(to_byte[c] for c in text)
            return text.encode()
    elif kinds & {"ByteFallback", "Metaspace"} or SPACE in json.dumps(
            data.get("decoder"), ensure_ascii=False):
        ordinary = _piece
    else:
        raise TokenizerError("its tokenizer.json has neither byte-level nor SentencePiece tokens "
                             f"(its decoder is {', '.join(sorted(map(str, kinds))) or 'missing'})")
    found, special = list[bytes](), list[int]()
    for i in range(size):
        added, text = tokenizer.added.get(i), tokenizer.token(i) or ""
        if added is None:
            found.append(b"" if text == unknown else ordinary(text))
            continue
        found.append(added.text.encode())
        if added.special:
            special.append(i)
    return found, special


def _parts(decoder: Any) -> Iterator[Mapping[str, Any]]:  # noqa: ANN401 - JSON
    for part in (decoder or {}).get("decoders") or [decoder]:
        if part:
            yield part


def _piece(text: str) -> bytes:
    byte = _BYTE.fullmatch(text)
    return bytes([int(byte[1], 16)]) if byte else text.replace(SPACE, " ").encode()
