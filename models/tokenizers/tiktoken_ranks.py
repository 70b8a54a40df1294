"""Reads Llama-3's tokenizer.model: tiktoken's ranks, lines of a token in base64 and its rank.

The special tokens that follow, and the expression that splits a text, are in Meta's code
(https://github.com/meta-llama/llama-models, models/llama3/tokenizer.py): 256 tokens after the
ranks, most of them reserved. Their names are those of Llama-3.1 and later.
"""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path

from core.errors import TokenizerError
from models.tokenizers.vocabulary import TokenType, Vocabulary

_NAMED = {0: "<|begin_of_text|>", 1: "<|end_of_text|>", 4: "<|finetune_right_pad_id|>",
          6: "<|start_header_id|>", 7: "<|end_header_id|>", 8: "<|eom_id|>", 9: "<|eot_id|>",
          10: "<|python_tag|>"}
SPECIAL = 256
_LINE = re.compile(rb"([A-Za-z0-9+/]+=*) ([0-9]+)")
_LONGEST = 256  # bytes a token; Llama-3's longest has 128


def is_tiktoken(path: Path) -> bool:
    """By contents: SentencePiece's model has the same name."""
    try:
        with path.open("rb") as file:
            return _LINE.fullmatch(file.readline(4096).rstrip(b"\n")) is not None
    except OSError:
        return False


def read_tiktoken(path: Path) -> Vocabulary:
    """Ranks are ids. Raises TokenizerError for a line that is none, or ranks with gaps."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise TokenizerError(f"cannot read {path}: {error.strerror}") from None
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(lines, 1):
        if not line and number == len(lines):
            break
        found = _LINE.fullmatch(line)
        token = _decoded(found[1]) if found else b""
        if not token or int(found[2]) != len(ranks) or token in ranks:  # type: ignore[index]
            raise TokenizerError(f"{path}: line {number} is {line[:60]!r}, expected a new token in "
                                 f"base64 and rank {len(ranks)}; the file is damaged: fetch it "
                                 "again")
        ranks[token] = len(ranks)
    missing = [b for b in range(256) if bytes([b]) not in ranks]
    if missing:
        raise TokenizerError(f"{path} has no token for byte {missing[0]}; it is truncated: fetch "
                             "it again")
    return _vocabulary(ranks)


def _decoded(text: bytes) -> bytes:
    try:
        token = base64.b64decode(text, validate=True)
    except binascii.Error:
        return b""
    return token if len(token) <= _LONGEST else b""


def _vocabulary(ranks: dict[bytes, int]) -> Vocabulary:
    letters = byte_letters()
    texts = {token: "".join(letters[b] for b in token) for token in ranks}
    merges: list[tuple[str, str]] = []
    for token in ranks:  # tiktoken joins the pair whose result has the lowest rank
        splits = ((token[:i], token[i:]) for i in range(1, len(token)))
        known = [(ranks[a], ranks[b], a, b) for a, b in splits if a in ranks and b in ranks]
        merges += [(texts[a], texts[b]) for _, _, a, b in sorted(known)]
    reserved = iter(range(SPECIAL))
    special = [_NAMED.get(i) or f"<|reserved_special_token_{next(reserved)}|>"
               for i in range(SPECIAL)]
    tokens = [*texts.values(), *special]
    types = [int(TokenType.NORMAL)] * len(ranks) + [int(TokenType.CONTROL)] * SPECIAL
    return Vocabulary(True, tokens, types, merges=merges, pre="llama-bpe", bos_id=len(ranks),
                      eos_id=len(ranks) + 1, add_bos=True)


def byte_letters() -> list[str]:
    """Return the letter that stands for each byte in byte-level BPE (GPT-2's table): the printable
    ones of Latin-1 for themselves, the others for the letters from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(b) if b in printable else chr(next(others)) for b in range(256)]
