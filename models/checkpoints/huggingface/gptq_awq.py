"""Unpacks GPTQ's and AWQ's int4 matrices into our codes, scales and zeros by group.

Both hold a matrix by columns of ours: K is the first axis, and eight codes share an int32.

         qweight             order in an int32        qzeros
    GPTQ int32 [K/8, N]      k = 8i .. 8i + 7         int32 [G, N/8]
    AWQ  int32 [K, N/8]      n = 0 2 4 6 1 3 5 7      int32 [G, N/8], in the same order

scales are float16 [G, N] and w[k, n] = scales[g, n] * (code[k, n] - zero[g, n]) where g = k //
group_size, or GPTQ's g_idx[k]. GPTQ's first format stores zeros less one, modulo 16. Sources:
AutoGPTQ's qlinear modules and GPTQModel's `gptq_v2` (https://github.com/AutoGPTQ/AutoGPTQ,
https://github.com/ModelCloud/GPTQModel), AutoAWQ's WQLinear_GEMM (https://github.com/casper-hansen/AutoAWQ).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from core.errors import CheckpointError
from core.ops.quantized_linear import unpack_codes
from core.tensor.tensor import Array

_SHIFTS = np.arange(0, 32, 4, dtype=np.uint32)
_AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)  # where column n of eight is found
_WORDS = 1 << 20  # unpacked at a time, to bound memory

PARTS = ("qweight", "qzeros", "scales", "g_idx")


class PackedMatrix:
    """Holds the tensors of one matrix, checked against each other. [K,N] is its shape."""

    def __init__(self, name: str, parts: Mapping[str, Array], group_size: int, awq: bool) -> None:
        """Raises CheckpointError for parts that are missing or do not belong together."""
        self.name, self.awq = name, awq
        for part in PARTS[:3]:
            if part not in parts:
                raise CheckpointError(f"tensor {name}.{part} is missing; {name} has "
                                      f"{', '.join(sorted(parts))}")
        self.words, self.zero_words = (_words(name, parts, p) for p in ("qweight", "qzeros"))
        self.scales = parts["scales"]
        rows, columns = self.words.shape
        self.k, self.n = (rows, columns * 8) if awq else (rows * 8, columns)
        self.group = self.k if group_size == -1 else group_size
        groups = -(-self.k // self.group)
        expected = {"qzeros": (groups, self.n // 8), "scales": (groups, self.n)}
        for part, shape in expected.items():
            if parts[part].shape != shape or self.n % 8:
                raise CheckpointError(
                    f"tensor {name}.{part} is {list(parts[part].shape)}, expected {list(shape)} "
                    f"for qweight {[rows, columns]} in groups of {self.group}")
        if self.scales.dtype.kind not in "fV" or not np.isfinite(self.scales).all():
            raise CheckpointError(f"tensor {name}.scales is {self.scales.dtype} or has numbers "
                                  "that are not finite; the file is damaged: fetch it again")
        self.order = _group_order(name, parts.get("g_idx"), self.k, self.group)

    def expanded(self, zero_offset: int) -> Array:
        """Return float32 [N,K], exact, for groups that are not neighbours (`order`)."""
        assert self.order is not None
        codes, scales = self.codes(), self.float_scales()
        zeros, out = self._zeros(zero_offset), np.empty((self.n, self.k), np.float32)
        step = max(1, _WORDS // self.k)
        for start in range(0, self.n, step):
            part = slice(start, start + step)
            code = unpack_codes(codes[part], 4, self.k).astype(np.float32)
            out[part] = scales[part][:, self.order] * (code - zeros[part][:, self.order])
        return out

    def codes(self) -> Array:
        """Return uint8 [N,ceil(K/2)]: the codes as core.ops.quantized_linear takes them, without
        `order`."""
        if not self.awq:  # a word's bytes already are pairs of neighbours along K
            return np.ascontiguousarray(self.words.T).view(np.uint8)
        codes = np.empty((self.n, -(-self.k // 2)), np.uint8)
        step = max(1, _WORDS // self.k)
        for start in range(0, self.words.shape[1], step):
            code = _unpack(self.words[:, start:start + step], awq=True)
            code = np.pad(code, ((0, self.k % 2), (0, 0)))
            codes[start * 8:(start + step) * 8] = (code[0::2] | code[1::2] << 4).T
        return codes

    def float_scales(self) -> Array:
        """Return the scales, float32 [N, groups]."""
        return np.ascontiguousarray(self.scales.T, np.float32)

    def zeros(self, offset: int) -> Array | None:
        """Return the zeros, float32 [N, groups]; None where all are 8, which `quantized_linear`
        takes unsaid."""
        zeros = self._zeros(offset)
        return None if (zeros == 8).all() else zeros

    def _zeros(self, offset: int) -> Array:
        stored = _unpack(self.zero_words, self.awq)
        return np.ascontiguousarray(((stored + offset) & 15).T, np.float32)


def _words(name: str, parts: Mapping[str, Array], part: str) -> Array:
    array = parts[part]
    if array.dtype != np.int32 or array.ndim != 2 or not array.size:
        raise CheckpointError(f"tensor {name}.{part} is {array.dtype}{list(array.shape)}, expected "
                              "int32 [rows, columns] with eight codes each")
    return array.view(np.uint32)


def _unpack(words: Array, awq: bool) -> Array:
    """Unpack uint32 [R, C] into uint8 [R, 8C]."""
    codes = (words[:, :, None] >> _SHIFTS & 15).astype(np.uint8)
    if awq:
        codes = codes[:, :, _AWQ_ORDER]
    return codes.reshape(words.shape[0], -1)


def _group_order(name: str, g_idx: Array | None, k: int, group: int) -> Array | None:
    """Return the group of each k, or None where groups are neighbours as they are without g_idx."""
    plain = np.arange(k) // group
    if g_idx is None or np.array_equal(g_idx, plain):
        return None
    if g_idx.shape != (k,) or g_idx.dtype != np.int32 or not (
            (g_idx >= 0) & (g_idx <= plain[-1])).all():
        raise CheckpointError(f"tensor {name}.g_idx is {g_idx.dtype}{list(g_idx.shape)}, expected "
                              f"int32 [{k}] with groups 0 to {plain[-1]}")
    return np.array(g_idx)
