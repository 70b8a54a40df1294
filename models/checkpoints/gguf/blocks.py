"""Unpacks GGUF's quantised blocks into our codes, scales and zeros by group
(core.ops.quantized_linear).

Layouts: https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-common.h. A block holds
its scales beside its codes; ours are apart. 4-bit blocks keep elements i and i + 16 (Q4_0, Q4_1) or
i + 32 (Q4_K) in the two halves of a byte, low half first; ours keep neighbours. Codes and scales
are carried over exactly. What GGUF adds as a minimum m becomes the zero -m / scale, one float32
rounding.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from core.errors import CheckpointError
from core.ops.quantize import Quantized
from core.plan.weights import QuantizedLayout
from core.tensor.tensor import Array

_ROWS = 1 << 22  # elements unpacked at a time, to bound memory


def unpack_blocks(raw: Array, kind: str, shape: tuple[int, int]) -> Quantized:
    """Unpack raw, uint8, the blocks of a matrix [N,K] in the type named `kind`. Raises
    CheckpointError for scales that are not finite numbers: the blocks are damaged, or not blocks.
    """
    unpack, bits, group, with_zeros = _TYPES[kind]
    n, k = shape
    raw = raw.reshape(n, -1)
    codes = np.empty((n, k if bits == 8 else k // 2), np.int8 if bits == 8 else np.uint8)
    scales = np.empty((n, k // group), np.float32)
    zeros = np.empty_like(scales) if with_zeros else None
    step = max(1, _ROWS // k)
    for start in range(0, n, step):
        part = slice(start, min(n, start + step))
        with np.errstate(invalid="ignore"):  # inf * 0, found below
            code, scale, minimum = unpack(raw[part])
        if not (np.isfinite(scale).all() and (minimum is None or np.isfinite(minimum).all())):
            raise CheckpointError(f"a {kind} tensor has scales that are not finite numbers; the "
                                  "file is damaged: fetch it again")
        rows = part.stop - start
        if with_zeros:
            # a group without a scale is constant: any scale will do if the codes are its zero's
            code = np.where(np.repeat(scale == 0, group, axis=-1).reshape(code.shape), 0, code)
            scale = np.where(scale == 0, 1, scale)
            assert zeros is not None and minimum is not None
            zeros[part] = (-minimum / scale).reshape(rows, -1)
        scales[part] = scale.reshape(rows, -1)
        code = code.reshape(rows, k)
        codes[part] = code if bits == 8 else code[:, 0::2] | code[:, 1::2] << 4
    return Quantized(codes, scales, zeros, bits, group)


def block_layout(kind: str) -> QuantizedLayout:
    """Return the layout that `unpack_blocks` makes of this type."""
    _, bits, group, with_zeros = _TYPES[kind]
    return QuantizedLayout(bits, group, with_zeros)


_Parts = tuple[Array, Array, Array | None]


def _half(raw: Array) -> Array:
    return np.ascontiguousarray(raw).view(np.float16).astype(np.float32)


def _q8_0(raw: Array) -> _Parts:
    b = raw.reshape(-1, 34)
    return b[:, 2:].view(np.int8), _half(b[:, :2]), None


def _q4_0(raw: Array) -> _Parts:
    b = raw.reshape(-1, 18)
    return _halves(b[:, 2:]), _half(b[:, :2]), None


def _q4_1(raw: Array) -> _Parts:
    b = raw.reshape(-1, 20)
    return _halves(b[:, 4:]), _half(b[:, :2]), _half(b[:, 2:4])


def _halves(packed: Array) -> Array:
    return np.concatenate([packed & 15, packed >> 4], axis=-1)


def _q4_k(raw: Array) -> _Parts:
    """Unpack blocks of 256 elements: two float16 scale the 6-bit scales and minimums of eight
    groups of 32."""
    b = raw.reshape(-1, 144)
    packed = b[:, 4:16]
    first, second, high = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scale = np.concatenate([first & 63, high & 15 | first >> 6 << 4], axis=-1)
    minimum = np.concatenate([second & 63, high >> 4 | second >> 6 << 4], axis=-1)
    codes = _halves(b[:, 16:].reshape(-1, 4, 32)).reshape(-1, 256)
    return (codes, _half(b[:, 0:2]) * scale.astype(np.float32),
            -_half(b[:, 2:4]) * minimum.astype(np.float32))


def _q6_k(raw: Array) -> _Parts:
    """Unpack blocks of 256 elements, low 4 and high 2 bits apart; sixteen groups of 16 with int8
    scales."""
    b = raw.reshape(-1, 210)
    low = _halves(b[:, :128].reshape(-1, 2, 64)).reshape(-1, 256)
    packed = b[:, 128:192].reshape(-1, 2, 1, 32)
    high = packed >> np.array([0, 2, 4, 6], np.uint8).reshape(1, 1, 4, 1) & 3
    codes = (low | high.reshape(-1, 256) << 4).astype(np.int8) - np.int8(32)
    scale = np.ascontiguousarray(b[:, 192:208]).view(np.int8).astype(np.float32)
    return codes, _half(b[:, 208:210]) * scale, None


_TYPES: dict[str, tuple[Callable[[Array], _Parts], int, int, bool]] = {
    "Q8_0": (_q8_0, 8, 32, False), "Q4_0": (_q4_0, 4, 32, False), "Q4_1": (_q4_1, 4, 32, True),
    "Q4_K": (_q4_k, 4, 32, True), "Q6_K": (_q6_k, 8, 16, False)}
