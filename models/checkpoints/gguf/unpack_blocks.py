"""Unpacks the block types of the op block_linear, one a function: numbers stay as the file has
them.

Layouts as in `unpack`. Codes are from 0 on. A weight is step * scale * code - min_step * minimum;
without a minimum codes count from the middle of their bits.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from core.tensor.tensor import Array
from models.checkpoints.gguf.unpack import QUARTERS, nibbles, quarters


class Blocks(NamedTuple):
    """Holds codes uint8 [B, elements], float16 steps of blocks and int8 scales of their groups,
    each with one row a block."""

    codes: Array
    steps: Array
    scales: Array | None = None
    min_steps: Array | None = None
    minimums: Array | None = None


def q4_1(raw: Array) -> Blocks:
    b = raw.reshape(-1, 20)
    return Blocks(nibbles(b[:, 4:]), _half(b, 0), None, -_half(b, 2))


def q5_0(raw: Array) -> Blocks:
    b = raw.reshape(-1, 22)
    return Blocks(_fifth_bit(b[:, 6:], b[:, 2:6]), _half(b, 0))


def q5_1(raw: Array) -> Blocks:
    b = raw.reshape(-1, 24)
    return Blocks(_fifth_bit(b[:, 8:], b[:, 4:8]), _half(b, 0), None, -_half(b, 2))


def _half(blocks: Array, at: int) -> Array:
    return np.ascontiguousarray(blocks[:, at:at + 2]).view(np.float16)


def _fifth_bit(packed: Array, high: Array) -> Array:
    codes: Array = nibbles(packed) | np.unpackbits(high, axis=-1, bitorder="little") << 4
    return codes


def q2_k(raw: Array) -> Blocks:
    """Unpack sixteen groups of 16 with 4-bit scales and minimums."""
    b = raw.reshape(-1, 84)
    return Blocks(quarters(b[:, 16:80]), _half(b, 80), (b[:, :16] & 15).view(np.int8),
                  _half(b, 82), (b[:, :16] >> 4).view(np.int8))


def q3_k(raw: Array) -> Blocks:
    """Unpack sixteen groups of 16, low 2 and high bits apart; a high bit of 0 takes 4 away. A 6-bit
    scale has its low 4 and high 2 bits apart. Codes are moved up by 4 to the middle of 4 bits."""
    b = raw.reshape(-1, 110)
    high = b[:, None, :32] >> np.arange(8, dtype=np.uint8).reshape(1, 8, 1) & 1
    codes = (quarters(b[:, 32:96]) | high.reshape(-1, 256) << 2) + np.uint8(4)
    top = (b[:, None, 104:108] >> QUARTERS.reshape(1, 4, 1) & 3).reshape(-1, 16)
    return Blocks(codes, _half(b, 108),
                  (nibbles(b[:, 96:104]) | top << 4).view(np.int8) - np.int8(32))


def q4_k(raw: Array) -> Blocks:
    b = raw.reshape(-1, 144)
    return _of_eight(b, nibbles(b[:, 16:].reshape(-1, 4, 32)).reshape(-1, 256))


def q5_k(raw: Array) -> Blocks:
    b = raw.reshape(-1, 176)
    low = nibbles(b[:, 48:].reshape(-1, 4, 32)).reshape(-1, 256)
    high = b[:, None, 16:48] >> np.arange(8, dtype=np.uint8).reshape(1, 8, 1) & 1
    return _of_eight(b, low | high.reshape(-1, 256) << 4)


def _of_eight(b: Array, codes: Array) -> Blocks:
    """Add scales and minimums of eight groups of 32: 6 bits each."""
    packed = b[:, 4:16]
    first, second, high = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scale = np.concatenate([first & 63, high & 15 | first >> 6 << 4], axis=-1)
    minimum = np.concatenate([second & 63, high >> 4 | second >> 6 << 4], axis=-1)
    return Blocks(codes, _half(b, 0), scale.view(np.int8), _half(b, 2), minimum.view(np.int8))


def q6_k(raw: Array) -> Blocks:
    """Unpack sixteen groups of 16 with int8 scales, low 4 and high 2 bits apart."""
    b = raw.reshape(-1, 210)
    low = nibbles(b[:, :128].reshape(-1, 2, 64)).reshape(-1, 256)
    return Blocks(low | quarters(b[:, 128:192]) << 4, _half(b, 208),
                  np.ascontiguousarray(b[:, 192:208]).view(np.int8))
