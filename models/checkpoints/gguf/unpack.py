"""Unpacks one block type a function: raw blocks become codes, scales and minimums by group.

Layouts: https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-common.h. Each function
takes uint8 [N, bytes of a row]. It returns codes in the order of the elements; the scale of each
group; and the minimum m of each group for the types whose weight is scale * code + m. Fields are
packed low bits first, and the parts of a byte belong to elements that lie a run of bytes apart.
"""

from __future__ import annotations

import numpy as np

from core.tensor.tensor import Array

Parts = tuple[Array, Array, Array | None]

#: the values of IQ4_NL's and IQ4_XS's codes, and of MXFP4's and NVFP4's in halves
_IQ4 = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.int8)
_FP4 = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.int8)
_QUARTERS = np.array([0, 2, 4, 6], np.uint8).reshape(1, 1, 4, 1)
_POWERS_OF_3 = np.array([1, 3, 9, 27, 81], np.uint8).reshape(1, 5, 1)


def _half(raw: Array) -> Array:
    return np.ascontiguousarray(raw).view(np.float16).astype(np.float32)


def _signed(raw: Array) -> Array:
    return np.ascontiguousarray(raw).view(np.int8).astype(np.float32)


def _nibbles(packed: Array) -> Array:
    return np.concatenate([packed & 15, packed >> 4], axis=-1)


def _quarters(packed: Array) -> Array:
    """Return four codes a byte [B, 4C] from [B, C]: each 32 bytes hold four runs of 32 codes."""
    codes: Array = packed.reshape(len(packed), -1, 1, 32) >> _QUARTERS & 3
    return codes.reshape(len(packed), -1)


def q8_0(raw: Array) -> Parts:
    b = raw.reshape(-1, 34)
    return b[:, 2:].view(np.int8), _half(b[:, :2]), None


def q4_0(raw: Array) -> Parts:
    b = raw.reshape(-1, 18)
    return _nibbles(b[:, 2:]), _half(b[:, :2]), None


def q4_1(raw: Array) -> Parts:
    b = raw.reshape(-1, 20)
    return _nibbles(b[:, 4:]), _half(b[:, :2]), _half(b[:, 2:4])


def q5_0(raw: Array) -> Parts:
    b = raw.reshape(-1, 22)
    return _fifth_bit(b[:, 6:], b[:, 2:6]).view(np.int8) - np.int8(16), _half(b[:, :2]), None


def q5_1(raw: Array) -> Parts:
    b = raw.reshape(-1, 24)
    return _fifth_bit(b[:, 8:], b[:, 4:8]).view(np.int8), _half(b[:, :2]), _half(b[:, 2:4])


def _fifth_bit(packed: Array, high: Array) -> Array:
    codes: Array = _nibbles(packed) | np.unpackbits(high, axis=-1, bitorder="little") << 4
    return codes


def q2_k(raw: Array) -> Parts:
    """Unpack sixteen groups of 16; two float16 scale their 4-bit scales and minimums."""
    b = raw.reshape(-1, 84)
    scale = _half(b[:, 80:82]) * (b[:, :16] & 15).astype(np.float32)
    minimum = -_half(b[:, 82:84]) * (b[:, :16] >> 4).astype(np.float32)
    return _quarters(b[:, 16:80]).view(np.int8), scale, minimum


def q3_k(raw: Array) -> Parts:
    """Unpack sixteen groups of 16, low 2 and high bits apart; a high bit of 0 takes 4 away. A 6-bit
    scale has its low 4 and high 2 bits apart."""
    b = raw.reshape(-1, 110)
    high = b[:, None, :32] >> np.arange(8, dtype=np.uint8).reshape(1, 8, 1) & 1
    codes = (_quarters(b[:, 32:96]) | high.reshape(-1, 256) << 2).view(np.int8) - np.int8(4)
    top = (b[:, None, 104:108] >> _QUARTERS.reshape(1, 4, 1) & 3).reshape(-1, 16)
    scale = (_nibbles(b[:, 96:104]) | top << 4).astype(np.float32) - 32
    return codes, _half(b[:, 108:110]) * scale, None


def q4_k(raw: Array) -> Parts:
    b = raw.reshape(-1, 144)
    return _nibbles(b[:, 16:].reshape(-1, 4, 32)).reshape(-1, 256), *_scales_of_8(b)


def q5_k(raw: Array) -> Parts:
    b = raw.reshape(-1, 176)
    low = _nibbles(b[:, 48:].reshape(-1, 4, 32)).reshape(-1, 256)
    high = b[:, None, 16:48] >> np.arange(8, dtype=np.uint8).reshape(1, 8, 1) & 1
    return (low | high.reshape(-1, 256) << 4).view(np.int8), *_scales_of_8(b)


def _scales_of_8(b: Array) -> tuple[Array, Array]:
    """Return scales and minimums of eight groups of 32: 6 bits each, scaled by two float16."""
    packed = b[:, 4:16]
    first, second, high = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scale = np.concatenate([first & 63, high & 15 | first >> 6 << 4], axis=-1)
    minimum = np.concatenate([second & 63, high >> 4 | second >> 6 << 4], axis=-1)
    return (_half(b[:, 0:2]) * scale.astype(np.float32),
            -_half(b[:, 2:4]) * minimum.astype(np.float32))


def q6_k(raw: Array) -> Parts:
    """Unpack sixteen groups of 16 with int8 scales, low 4 and high 2 bits apart."""
    b = raw.reshape(-1, 210)
    low = _nibbles(b[:, :128].reshape(-1, 2, 64)).reshape(-1, 256)
    codes = (low | _quarters(b[:, 128:192]) << 4).view(np.int8) - np.int8(32)
    return codes, _half(b[:, 208:210]) * _signed(b[:, 192:208]), None


def iq4_nl(raw: Array) -> Parts:
    b = raw.reshape(-1, 18)
    return _IQ4[_nibbles(b[:, 2:])], _half(b[:, :2]), None


def iq4_xs(raw: Array) -> Parts:
    """Unpack eight groups of 32; a 6-bit scale has its low 4 and high 2 bits apart."""
    b = raw.reshape(-1, 136)
    low = np.stack([b[:, 4:8] & 15, b[:, 4:8] >> 4], axis=-1).reshape(-1, 8)
    high = (b[:, 2:4, None] >> _QUARTERS.reshape(1, 1, 4) & 3).reshape(-1, 8)
    scale = (low | high << 4).astype(np.float32) - 32
    codes = _IQ4[_nibbles(b[:, 8:].reshape(-1, 8, 16)).reshape(-1, 256)]
    return codes, _half(b[:, :2]) * scale, None


def tq1_0(raw: Array) -> Parts:
    """Unpack ternary digits, five a byte and four in the last bytes. A byte is a fraction of 256
    whose digits in base 3 come out at the top, one a multiplication by 3, modulo 256."""
    b = raw.reshape(-1, 54)
    runs = [(b[:, None, start:end] * _POWERS_OF_3[:, :digits]).reshape(len(b), -1)
            for start, end, digits in ((0, 32, 5), (32, 48, 5), (48, 52, 4))]
    digits = np.concatenate(runs, axis=-1).astype(np.uint16) * 3 >> 8
    return digits.astype(np.uint8) + np.uint8(7), _half(b[:, 52:54]), None


def tq2_0(raw: Array) -> Parts:
    b = raw.reshape(-1, 66)
    return _quarters(b[:, :64]) + np.uint8(7), _half(b[:, 64:66]), None


def mxfp4(raw: Array) -> Parts:
    """Unpack groups of 32 whose scale is a power of two, halved as codes are doubled. 255 is NaN
    (OCP Microscaling Formats 1.0); the few below it whose products overflow are taken for that."""
    b = raw.reshape(-1, 17)
    exponent = b[:, :1].astype(np.int32)
    scale = np.ldexp(np.float32(1), np.minimum(exponent, 250) - 128)
    return _FP4[_nibbles(b[:, 1:])], np.where(exponent > 250, np.float32("nan"), scale), None


def nvfp4(raw: Array) -> Parts:
    """Unpack four groups of 16 with scales in 8 bits: 4 of exponent, 3 of mantissa, halved as codes
    are doubled; 127 is 0, as llama.cpp reads it."""
    b = raw.reshape(-1, 36)
    exponent, mantissa = (b[:, :4] >> 3 & 15).astype(np.int32), (b[:, :4] & 7).astype(np.float32)
    scale = np.where(exponent == 0, np.ldexp(mantissa, -10), np.ldexp(8 + mantissa, exponent - 11))
    scale = np.where(b[:, :4] == 127, np.float32(0), scale)
    return _FP4[_nibbles(b[:, 4:].reshape(-1, 4, 8)).reshape(-1, 64)], scale, None
