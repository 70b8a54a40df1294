"""Layouts: say how a quantised matrix is stored, as which parts, and which ops multiply by it and
look up its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from core.ops.quantized.block_linear import expand_matrix
from core.ops.quantized_linear import expand_weight
from core.tensor.dtype import f16, f32, i4x2, i8
from core.tensor.tensor import Array, TensorSpec


@dataclass(frozen=True)
class QuantizedLayout:
    """Describes codes, scales and, if any, zeros by group (core.ops.quantized_linear)."""

    bits: int
    group_size: int
    has_zeros: bool
    op: ClassVar = "quantized_linear"
    lookup: ClassVar = "quantized_embedding"
    names: ClassVar[tuple[str, ...]] = ("codes", "scales", "zeros")

    @property
    def attrs(self) -> dict[str, int]:
        """Return the op's attributes."""
        return {"bits": self.bits, "group_size": self.group_size}

    def parts(self, rows: int, columns: int) -> dict[str, TensorSpec]:
        """Return the specs of a matrix's parts, by name; absent ones are left out."""
        groups = TensorSpec((rows, -(-columns // self.group_size)), f32)
        codes = TensorSpec((rows, -(-columns * self.bits // 8)), i8 if self.bits == 8 else i4x2)
        return {"codes": codes, "scales": groups} | ({"zeros": groups} if self.has_zeros else {})

    def expand(self, parts: Sequence[Array | None], columns: int) -> Array:
        """Return some rows as float32 [N, columns]; `parts` in the order of `names`."""
        codes, scales, zeros = parts
        assert codes is not None and scales is not None  # readers make both
        return expand_weight(codes, scales, zeros, self.bits, self.group_size, columns)


@dataclass(frozen=True)
class BlockLayout:
    """Describes codes in blocks, with scales of one level or two (block_linear)."""

    bits: int
    group_size: int
    block_size: int
    two_levels: bool
    has_minimums: bool
    op: ClassVar = "block_linear"
    lookup: ClassVar = "block_embedding"
    names: ClassVar[tuple[str, ...]] = ("codes", "high", "steps", "scales", "min_steps", "minimums")

    @property
    def attrs(self) -> dict[str, int]:
        """Return the op's attributes."""
        return {"bits": self.bits, "group_size": self.group_size, "block_size": self.block_size}

    def parts(self, rows: int, columns: int) -> dict[str, TensorSpec]:
        """Return the specs of a matrix's parts, by name; absent ones are left out."""
        blocks = TensorSpec((rows, columns // self.block_size), f16)
        groups = TensorSpec((rows, columns // self.group_size), i8)
        high = TensorSpec((rows, columns * (self.bits - 4) // 8), i8)
        held = {"codes": True, "high": self.bits > 4, "steps": True, "scales": self.two_levels,
                "min_steps": self.has_minimums,
                "minimums": self.two_levels and self.has_minimums}
        specs = (TensorSpec((rows, columns // 2), i4x2), high, blocks, groups, blocks, groups)
        return {name: spec for name, spec in zip(self.names, specs, strict=True) if held[name]}

    def expand(self, parts: Sequence[Array | None], columns: int) -> Array:
        """Return some rows as float32 [N, columns]; `parts` in the order of `names`."""
        codes, high, steps, scales, min_steps, minimums = parts
        assert codes is not None and steps is not None  # readers make both
        return expand_matrix(codes, high, steps.astype(f32.numpy), scales,
                             None if min_steps is None else min_steps.astype(f32.numpy), minimums,
                             **self.attrs, columns=columns)


Layout = QuantizedLayout | BlockLayout
_ELEMENTS = 1 << 22  # expanded at a time: temporaries stay small beside the result


def part_names(matrix: str, layout: Layout | type[QuantizedLayout] = QuantizedLayout,
               ) -> tuple[str, ...]:
    """Return the names under which a matrix's parts are stored, absent ones too."""
    return tuple(f"{matrix}.{part}" for part in layout.names)


def stored_parts(quantized: Mapping[str, Layout]) -> set[str]:
    """Return the names of all parts of these matrices."""
    return {part for name, layout in quantized.items() for part in part_names(name, layout)}


def expand(layout: Layout, parts: Sequence[Array | None], columns: int) -> Array:
    """Return the matrix as float32 [N, columns]; `parts` in the order of `layout.names`."""
    n, step = max(len(p) for p in parts if p is not None), max(1, _ELEMENTS // max(1, columns))
    out: Array = np.empty((n, columns), np.float32)
    for start in range(0, n, step):
        rows = slice(start, start + step)
        out[rows] = layout.expand([p if p is None else p[rows] for p in parts], columns)
    return out


def expand_stored(arrays: Mapping[str, Array], matrix: str, layout: Layout, columns: int,
                  rows: slice = slice(None)) -> Array:
    """Return a stored matrix, or some rows of it, as float32 [N, columns]."""
    return expand(layout, [p if (p := arrays.get(name)) is None else p[rows]
                           for name in part_names(matrix, layout)], columns)
