"""Writes SentencePiece's model file by hand: protobuf of sentencepiece_model.proto.

https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto (Apache-2.0). With
it a vocabulary from GGUF or from llama2.c runs in SentencePiece's own processor, which is what its
ids were made with.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator

from models.tokenizers.vocabulary import TokenType, Vocabulary

_BPE = 2  # TrainerSpec.ModelType


def to_sentencepiece(v: Vocabulary) -> bytes:
    """Return the ModelProto: pieces (1), trainer_spec (2), normalizer_spec (3)."""
    # a token that is not found everywhere must not be found by SentencePiece itself
    kinds = [TokenType.CONTROL if i in v.added and kind == TokenType.USER_DEFINED else kind
             for i, kind in enumerate(v.types)]
    pieces = b"".join(
        _bytes(1, _bytes(1, token.encode()) + _float(2, score) + _int(3, kind))
        for token, score, kind in zip(v.tokens, v.scores, kinds, strict=True))
    has_bytes = TokenType.BYTE in v.types
    trainer = _int(3, _BPE) + _int(4, len(v.tokens)) + _int(35, int(has_bytes))
    for number, id_number, which in ((45, 40, v.unk_id), (46, 41, v.bos_id), (47, 42, v.eos_id)):
        trainer += _int(id_number, -1 if which is None else which)
        if which is not None:
            trainer += _bytes(number, v.tokens[which].encode())
    normalizer = (_bytes(1, b"identity") + _bytes(2, b"") + _int(3, int(v.add_space_prefix))
                  + _int(4, 0))
    return pieces + _bytes(2, trainer) + _bytes(3, normalizer)


def without_prefix(proto: bytes) -> bytes:
    """Return the ModelProto with normalizer_spec.add_dummy_prefix off: a message that a file
    repeats is merged, and its last value counts."""
    return proto + _bytes(3, _int(3, 0))


def hiding(proto: bytes, ids: Collection[int]) -> bytes:
    """Return the ModelProto with these user-defined pieces as control tokens, which the library
    does not find in a text. All of its fields are messages."""
    made, types, i = [], piece_types(proto), 0
    for number, value in _fields(proto):
        assert isinstance(value, bytes)
        if number == 1:
            if i in ids and types[i] == TokenType.USER_DEFINED:
                value += _int(3, TokenType.CONTROL)  # the last value counts
            i += 1
        made.append(_bytes(number, value))
    return b"".join(made)


def piece_types(proto: bytes) -> list[int]:
    """Return the TokenType of each piece of a ModelProto: the library does not tell all of them."""
    types = []
    for number, piece in _fields(proto):
        if number == 1 and isinstance(piece, bytes):
            types.append(next((int(value) for field, value in _fields(piece)
                               if field == 3 and isinstance(value, int)), int(TokenType.NORMAL)))
    return types


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield number and value of each field of a protobuf message."""
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        value: int | bytes
        if tag & 7 == 0:
            value, at = _read_varint(data, at)
        else:
            size, at = _read_varint(data, at) if tag & 7 == 2 else (4 if tag & 7 == 5 else 8, at)
            value, at = data[at:at + size], at + size
        yield tag >> 3, value


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value, shift, at = value | (byte & 0x7F) << shift, shift + 7, at + 1
        if byte < 0x80:
            return value, at


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # negative numbers are sign-extended to 64 bits
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _int(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _float(field: int, value: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", value)
