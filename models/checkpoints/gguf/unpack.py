"""Unpacks one block type a function: raw blocks become codes and scales by group.

Layouts: https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-common.h. Each function
takes uint8 [N, bytes of a row] and returns codes in the order of the elements and the scale of each
group. Fields are packed low bits first, and the parts of a byte belong to elements that lie a run
of bytes apart. The types of `core.ops.quantized.block_linear` are unpacked in `unpack_blocks`.
"""

from __future__ import annotations

import numpy as np

from core.tensor.tensor import Array

Parts = tuple[Array, Array]

#: the values of IQ4_NL's and IQ4_XS's codes, and of MXFP4's and NVFP4's in halves
_IQ4 = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.int8)
_FP4 = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.int8)
QUARTERS = np.array([0, 2, 4, 6], np.uint8).reshape(1, 1, 4, 1)
_POWERS_OF_3 = np.array([1, 3, 9, 27, 81], np.uint8).reshape(1, 5, 1)


def half(raw: Array) -> Array:
    return np.ascontiguousarray(raw).view(np.float16).astype(np.float32)


def nibbles(packed: Array) -> Array:
    return np.concatenate([packed & 15, packed >> 4], axis=-1)


def quarters(packed: Array) -> Array:
    """Return four codes a byte [B, 4C] from [B, C]: each 32 bytes hold four runs of 32 codes."""
    codes: Array = packed.reshape(len(packed), -1, 1, 32) >> QUARTERS & 3
    return codes.reshape(len(packed), -1)


def q8_0(raw: Array) -> Parts:
    b = raw.reshape(-1, 34)
    return b[:, 2:].view(np.int8), half(b[:, :2])


def q4_0(raw: Array) -> Parts:
    b = raw.reshape(-1, 18)
    return nibbles(b[:, 2:]), half(b[:, :2])


def iq4_nl(raw: Array) -> Parts:
    b = raw.reshape(-1, 18)
    return _IQ4[nibbles(b[:, 2:])], half(b[:, :2])


def iq4_xs(raw: Array) -> Parts:
    """Unpack eight groups of 32; a 6-bit scale has its low 4 and high 2 bits apart."""
    b = raw.reshape(-1, 136)
    low = np.stack([b[:, 4:8] & 15, b[:, 4:8] >> 4], axis=-1).reshape(-1, 8)
    high = (b[:, 2:4, None] >> QUARTERS.reshape(1, 1, 4) & 3).reshape(-1, 8)
    scale = (low | high << 4).astype(np.float32) - 32
    codes = _IQ4[nibbles(b[:, 8:].reshape(-1, 8, 16)).reshape(-1, 256)]
    return codes, half(b[:, :2]) * scale


def tq1_0(raw: Array) -> Parts:
    """Unpack ternary digits, five a byte and four in the last bytes. A byte is a fraction of 256
    whose digits in base 3 come out at the top, one a multiplication by 3, modulo 256."""
    b = raw.reshape(-1, 54)
    runs = [(b[:, None, start:end] * _POWERS_OF_3[:, :digits]).reshape(len(b), -1)
            for start, end, digits in ((0, 32, 5), (32, 48, 5), (48, 52, 4))]
    digits = np.concatenate(runs, axis=-1).astype(np.uint16) * 3 >> 8
    return digits.astype(np.uint8) + np.uint8(7), half(b[:, 52:54])


def tq2_0(raw: Array) -> Parts:
    b = raw.reshape(-1, 66)
    return quarters(b[:, :64]) + np.uint8(7), half(b[:, 64:66])


def mxfp4(raw: Array) -> Parts:
    """Unpack groups of 32 whose scale is a power of two, halved as codes are doubled. 255 is NaN
    (OCP Microscaling Formats 1.0); the few below it whose products overflow are taken for that."""
    b = raw.reshape(-1, 17)
    exponent = b[:, :1].astype(np.int32)
    scale = np.ldexp(np.float32(1), np.minimum(exponent, 250) - 128)
    return _FP4[nibbles(b[:, 1:])], np.where(exponent > 250, np.float32("nan"), scale)


def nvfp4(raw: Array) -> Parts:
    """Unpack four groups of 16 with scales in 8 bits: 4 of exponent, 3 of mantissa, halved as codes
    are doubled; 127 is 0, as llama.cpp reads it."""
    b = raw.reshape(-1, 36)
    exponent, mantissa = (b[:, :4] >> 3 & 15).astype(np.int32), (b[:, :4] & 7).astype(np.float32)
    scale = np.where(exponent == 0, np.ldexp(mantissa, -10), np.ldexp(8 + mantissa, exponent - 11))
    scale = np.where(b[:, :4] == 127, np.float32(0), scale)
    return _FP4[nibbles(b[:, 4:].reshape(-1, 4, 8)).reshape(-1, 64)], scale
