"""SentencePiece's model file, written by hand: protobuf of sentencepiece_model.proto.

https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto (Apache-2.0). With
it a vocabulary from GGUF or from llama2.c runs in SentencePiece's own processor, which is what its
ids were made with.
"""

from __future__ import annotations

import struct

from models.tokenizers.vocabulary import TokenType, Vocabulary

_BPE = 2  # TrainerSpec.ModelType


def to_sentencepiece(v: Vocabulary) -> bytes:
    """The ModelProto: pieces (1), trainer_spec (2), normalizer_spec (3)."""
    pieces = b"".join(
        _bytes(1, _bytes(1, token.encode()) + _float(2, score) + _int(3, kind))
        for token, score, kind in zip(v.tokens, v.scores, v.types, strict=True))
    has_bytes = TokenType.BYTE in v.types
    trainer = _int(3, _BPE) + _int(4, len(v.tokens)) + _int(35, int(has_bytes))
    for number, id_number, which in ((45, 40, v.unk_id), (46, 41, v.bos_id), (47, 42, v.eos_id)):
        trainer += _int(id_number, -1 if which is None else which)
        if which is not None:
            trainer += _bytes(number, v.tokens[which].encode())
    normalizer = (_bytes(1, b"identity") + _bytes(2, b"") + _int(3, int(v.add_space_prefix))
                  + _int(4, 0))
    return pieces + _bytes(2, trainer) + _bytes(3, normalizer)


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
