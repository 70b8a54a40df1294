"""Turns GGUF's quantised blocks into the parts of core.ops.quantized, or into float32.

A block holds its scales beside its codes; ours are apart, and neighbours share a byte. Every number
is carried over exactly. The types of 1 to 3 bits with tables of vectors (IQ1, IQ2, IQ3) have no
such form of ours. They are expanded by the `gguf` package.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from core.errors import CheckpointError
from core.ops.quantized.layouts import BlockLayout, Layout, QuantizedLayout, expand
from core.tensor.tensor import Array
from models.checkpoints.gguf import unpack, unpack_blocks
from models.checkpoints.gguf.package import load_gguf

_ELEMENTS = 1 << 22  # unpacked at a time, to bound memory

#: type -> its function, and the layout that it is kept in. Groups of 16 have int8 codes also where
#: 4 bits would do: GPUs read 16 bytes of codes of one group at a time.
_GROUPS: dict[str, tuple[Callable[[Array], unpack.Parts], QuantizedLayout]] = {
    name: (function, QuantizedLayout(bits, group, has_zeros=False))
    for name, function, bits, group in (
        ("Q8_0", unpack.q8_0, 8, 32), ("Q4_0", unpack.q4_0, 4, 32),
        ("IQ4_NL", unpack.iq4_nl, 8, 32), ("IQ4_XS", unpack.iq4_xs, 8, 32),
        ("TQ1_0", unpack.tq1_0, 4, 256), ("TQ2_0", unpack.tq2_0, 4, 256),
        ("MXFP4", unpack.mxfp4, 8, 32), ("NVFP4", unpack.nvfp4, 8, 16))}
#: the same with scales of two levels, or codes of 5 bits
_BLOCKS: dict[str, tuple[Callable[[Array], unpack_blocks.Blocks], BlockLayout]] = {
    name: (function, BlockLayout(bits, group, block, two, least))
    for name, function, bits, group, block, two, least in (
        ("Q4_1", unpack_blocks.q4_1, 4, 32, 32, False, True),
        ("Q5_0", unpack_blocks.q5_0, 5, 32, 32, False, False),
        ("Q5_1", unpack_blocks.q5_1, 5, 32, 32, False, True),
        ("Q2_K", unpack_blocks.q2_k, 4, 16, 256, True, True),
        ("Q3_K", unpack_blocks.q3_k, 4, 16, 256, True, False),
        ("Q4_K", unpack_blocks.q4_k, 4, 32, 256, True, True),
        ("Q5_K", unpack_blocks.q5_k, 5, 32, 256, True, True),
        ("Q6_K", unpack_blocks.q6_k, 6, 16, 256, True, False))}


def block_layout(kind: str) -> Layout | None:
    """Return the layout that `unpacked` makes of a type; None for types that can only be
    expanded."""
    if kind in _BLOCKS:
        return _BLOCKS[kind][1]
    return _GROUPS[kind][1] if kind in _GROUPS else None


def need_package(kind: str) -> None:
    """Raise CheckpointError where `expand_blocks` needs a package that is missing."""
    if block_layout(kind) is None:
        load_gguf(f"reading tensors of type {kind}", CheckpointError)


def unpacked(raw: Array, kind: str, shape: tuple[int, int]) -> dict[str, Array]:
    """Unpack raw, uint8, the blocks of a matrix [N,K] in the type named `kind`: the parts of its
    layout by name. Raises CheckpointError for scales that are not finite numbers: the blocks are
    damaged, or not blocks."""
    n, k = shape
    layout = block_layout(kind)
    assert layout is not None  # callers ask only then
    raw = raw.reshape(n, -1)
    parts = {name: np.empty(spec.sizes, spec.dtype.numpy)
             for name, spec in layout.parts(n, k).items()}
    step = max(1, _ELEMENTS // k)
    for start in range(0, n, step):
        rows = slice(start, min(n, start + step))
        made = _in_groups(raw[rows], kind, k) if kind in _GROUPS else _in_blocks(raw[rows], kind, k)
        for name, part in parts.items():
            part[rows] = made[name].reshape(rows.stop - start, -1)
    return parts


def _in_groups(raw: Array, kind: str, columns: int) -> dict[str, Array]:
    function, layout = _GROUPS[kind]
    with np.errstate(invalid="ignore"):  # inf * 0, found below
        codes, scales = function(raw)
    _check_finite(kind, scales)
    codes = codes.reshape(-1, columns)
    return {"codes": codes if layout.bits == 8 else _pairs(codes), "scales": scales}


def _in_blocks(raw: Array, kind: str, columns: int) -> dict[str, Array]:
    function, layout = _BLOCKS[kind]
    codes, steps, scales, min_steps, minimums = function(raw)
    for numbers in (steps, min_steps):
        if numbers is not None:
            _check_finite(kind, numbers)
    codes = codes.reshape(-1, columns)
    made = {"codes": _pairs(codes & 15), "high": _high(codes, layout.bits), "steps": steps,
            "scales": scales, "min_steps": min_steps, "minimums": minimums}
    return {name: part for name, part in made.items() if part is not None}


def _pairs(codes: Array) -> Array:
    packed: Array = codes[:, 0::2] | codes[:, 1::2] << 4
    return packed


def _high(codes: Array, bits: int) -> Array | None:
    """Return the bits above the low four, 8 or 4 codes a byte."""
    if bits == 4:
        return None
    parts = (codes >> 4).reshape(len(codes), -1, 8 // (bits - 4))
    shifts = np.arange(0, 8, bits - 4, dtype=np.uint8)
    joined: Array = np.bitwise_or.reduce(parts << shifts, axis=-1).view(np.int8)
    return joined


def expand_blocks(raw: Array, kind: str, shape: tuple[int, ...]) -> Array:
    """Return a tensor of blocks, raw uint8, as float32 of `shape`. Raises CheckpointError for
    damaged blocks, or for a missing package."""
    k = shape[-1]
    n = int(np.prod(shape[:-1]))
    layout = block_layout(kind)
    if layout is not None:
        parts = unpacked(raw, kind, (n, k))
        return expand(layout, [parts.get(name) for name in layout.names], k).reshape(shape)
    gguf = load_gguf(f"reading tensors of type {kind}", CheckpointError)
    raw, stored = raw.reshape(n, -1), gguf.GGMLQuantizationType[kind]
    out = np.empty((n, k), np.float32)
    step = max(1, _ELEMENTS // k)
    for start in range(0, n, step):
        with np.errstate(invalid="ignore"):  # inf * 0, found below
            out[start:start + step] = gguf.quants.dequantize(raw[start:start + step], stored)
    _check_finite(kind, out)
    return out.reshape(shape)


def _check_finite(kind: str, numbers: Array) -> None:
    if not np.isfinite(numbers).all():
        raise CheckpointError(f"a {kind} tensor has scales that are not finite numbers; the file "
                              "is damaged: fetch it again")
