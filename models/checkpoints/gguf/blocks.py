"""Turns GGUF's quantised blocks into our codes, scales and zeros by group
(core.ops.quantized_linear), or into float32.

A block holds its scales beside its codes; ours are apart, and 4-bit codes of neighbours share a
byte. Codes and scales are carried over exactly. What GGUF adds as a minimum m becomes the zero
-m / scale: with u = 2^-24 a weight w then differs from GGUF's by at most u * (2|m| + 4|w|).
The types of 1 to 3 bits with tables of vectors (IQ1, IQ2, IQ3) have no such form of ours. They are
expanded by the `gguf` package.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from core.errors import CheckpointError
from core.ops.expand import expand
from core.ops.quantize import Quantized
from core.plan.weights import QuantizedLayout
from core.tensor.tensor import Array
from models.checkpoints.gguf import unpack
from models.checkpoints.gguf.package import load_gguf

_ELEMENTS = 1 << 22  # unpacked at a time, to bound memory

#: type -> its function, and the layout that it is kept in. Groups of 16 have int8 codes also where
#: 4 bits would do: GPUs read 16 bytes of codes of one group at a time.
_KEPT: dict[str, tuple[Callable[[Array], unpack.Parts], QuantizedLayout]] = {
    name: (function, QuantizedLayout(bits, group, zeros))
    for name, function, bits, group, zeros in (
        ("Q8_0", unpack.q8_0, 8, 32, False), ("Q4_0", unpack.q4_0, 4, 32, False),
        ("Q4_1", unpack.q4_1, 4, 32, True), ("Q5_0", unpack.q5_0, 8, 32, False),
        ("Q5_1", unpack.q5_1, 8, 32, True), ("Q2_K", unpack.q2_k, 8, 16, True),
        ("Q3_K", unpack.q3_k, 8, 16, False), ("Q4_K", unpack.q4_k, 4, 32, True),
        ("Q5_K", unpack.q5_k, 8, 32, True), ("Q6_K", unpack.q6_k, 8, 16, False),
        ("IQ4_NL", unpack.iq4_nl, 8, 32, False), ("IQ4_XS", unpack.iq4_xs, 8, 32, False),
        ("TQ1_0", unpack.tq1_0, 4, 256, False), ("TQ2_0", unpack.tq2_0, 4, 256, False),
        ("MXFP4", unpack.mxfp4, 8, 32, False), ("NVFP4", unpack.nvfp4, 8, 16, False))}


def block_layout(kind: str) -> QuantizedLayout | None:
    """Return the layout that `unpack_blocks` makes of a type; None for types that can only be
    expanded."""
    return _KEPT[kind][1] if kind in _KEPT else None


def need_package(kind: str) -> None:
    """Raise CheckpointError where `expand_blocks` needs a package that is missing."""
    if kind not in _KEPT:
        load_gguf(f"reading tensors of type {kind}", CheckpointError)


def unpack_blocks(raw: Array, kind: str, shape: tuple[int, int]) -> Quantized:
    """Unpack raw, uint8, the blocks of a matrix [N,K] in the type named `kind`. Raises
    CheckpointError for scales that are not finite numbers: the blocks are damaged, or not blocks.
    """
    function, layout = _KEPT[kind]
    bits, group = layout.bits, layout.group_size
    n, k = shape
    raw = raw.reshape(n, -1)
    codes = np.empty((n, k if bits == 8 else k // 2), np.int8 if bits == 8 else np.uint8)
    scales = np.empty((n, k // group), np.float32)
    zeros = np.empty_like(scales) if layout.has_zeros else None
    step = max(1, _ELEMENTS // k)
    for start in range(0, n, step):
        part = slice(start, min(n, start + step))
        with np.errstate(invalid="ignore"):  # inf * 0, found below
            code, scale, minimum = function(raw[part])
        if not (np.isfinite(scale).all() and (minimum is None or np.isfinite(minimum).all())):
            raise _damaged(kind)
        rows = part.stop - start
        if zeros is not None and minimum is not None:
            # a group without a scale is constant: any scale will do if the codes are its zero's
            code = np.where(np.repeat(scale == 0, group, axis=-1).reshape(code.shape), 0, code)
            scale = np.where(scale == 0, 1, scale)
            zeros[part] = (-minimum / scale).reshape(rows, -1)
        scales[part] = scale.reshape(rows, -1)
        code = code.reshape(rows, k)
        codes[part] = code if bits == 8 else code[:, 0::2] | code[:, 1::2] << 4
    return Quantized(codes, scales, zeros, bits, group)


def expand_blocks(raw: Array, kind: str, shape: tuple[int, ...]) -> Array:
    """Return a tensor of blocks, raw uint8, as float32 of `shape`. Raises CheckpointError for
    damaged blocks, or for a missing package."""
    k = shape[-1]
    n = int(np.prod(shape[:-1]))
    if kind in _KEPT:
        return expand(unpack_blocks(raw, kind, (n, k)), k).reshape(shape)
    gguf = load_gguf(f"reading tensors of type {kind}", CheckpointError)
    raw, stored = raw.reshape(n, -1), gguf.GGMLQuantizationType[kind]
    out = np.empty((n, k), np.float32)
    step = max(1, _ELEMENTS // k)
    for start in range(0, n, step):
        with np.errstate(invalid="ignore"):  # inf * 0, found below
            out[start:start + step] = gguf.quants.dequantize(raw[start:start + step], stored)
    if not np.isfinite(out).all():
        raise _damaged(kind)
    return out.reshape(shape)


def _damaged(kind: str) -> CheckpointError:
    return CheckpointError(f"a {kind} tensor has scales that are not finite numbers; the file is "
                           "damaged: fetch it again")
