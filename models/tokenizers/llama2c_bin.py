"""Reads llama2.c's tokenizer.bin: uint32 longest token, then float32 score, uint32 length, bytes.

https://github.com/karpathy/llama2.c, tokenizer.py (MIT). It stores a space where SentencePiece
stores U+2581, and newlines around `<s>` and `</s>`; the kind of a token is not stored, so it
follows from the positions that SentencePiece fixes (0 unknown, 1 BOS, 2 EOS) and from `<0xNN>`.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path

from core.errors import TokenizerError
from models.tokenizers.vocabulary import TokenType, Vocabulary

_ENTRY = struct.Struct("<fI")
SPECIAL = {1: "<s>", 2: "</s>"}
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
SPACE = "\u2581"


def read_tokenizer_bin(path: Path) -> Vocabulary:
    """Raises TokenizerError if an entry ends after the file does, or is longer than stated."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TokenizerError(f"cannot read {path}: {error.strerror}") from None
    longest = int.from_bytes(data[:4], "little")
    tokens: list[str] = []
    scores: list[float] = []
    at = 4
    while at < len(data):
        score, length = _ENTRY.unpack_from(data, at) if at + 8 <= len(data) else (0.0, len(data))
        at += _ENTRY.size
        if length > longest or at + length > len(data):
            raise TokenizerError(f"{path}: token {len(tokens)} has {length} bytes, expected at "
                                 f"most {longest}, and {max(0, len(data) - at)} are left; the "
                                 "file is truncated or no tokenizer.bin")
        try:
            tokens.append(data[at:at + length].decode().replace(" ", SPACE))
        except UnicodeDecodeError:
            raise TokenizerError(f"{path}: token {len(tokens)} is not UTF-8; the file is damaged"
                                 ) from None
        scores.append(score)
        at += length
    if len(tokens) < 3:
        raise TokenizerError(f"{path} has {len(tokens)} tokens, expected <unk>, <s>, </s> and more")
    tokens = [SPECIAL.get(i, token) for i, token in enumerate(tokens)]
    types = [int(TokenType.UNKNOWN if i == 0 else TokenType.CONTROL if i in SPECIAL
                 else TokenType.BYTE if _BYTE.fullmatch(token) else TokenType.NORMAL)
             for i, token in enumerate(tokens)]
    return Vocabulary(False, tokens, types, scores, bos_id=1, eos_id=2, unk_id=0, add_bos=True)


def tokenizer_bin(v: Vocabulary) -> bytes:
    """Write what llama2.c's tokenizer.py would for a SentencePiece vocabulary."""
    texts = [f"\n{token}\n" if i in (v.bos_id, v.eos_id) else token
             for i, token in enumerate(v.tokens)]
    encoded = [text.replace(SPACE, " ").encode() for text in texts]
    entries = (_ENTRY.pack(score, len(text)) + text
               for score, text in zip(v.scores, encoded, strict=True))
    return struct.pack("<I", max(map(len, encoded))) + b"".join(entries)
