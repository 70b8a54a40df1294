"""Converts the row order of q and k: halves for Hugging Face's rope, pairs for llama2.c's, Meta's
and GGUF's.

Both orders hold the same numbers. Rope rotates element i of a head with its partner; in halves the
partner of i is i + d/2, in pairs the partner of 2i is 2i + 1. Converting moves rows (of weights and
of biases alike) within each head and computes nothing, so it is exact in both directions.
"""

from __future__ import annotations

from core.tensor.tensor import Array


def to_pairs(rows: Array, heads: int) -> Array:
    """Reorder [heads * d, ...] from halves (i, i + d/2) to pairs (2i, 2i + 1), as a new array."""
    half = rows.shape[0] // heads // 2
    return rows.reshape(heads, 2, half, -1).swapaxes(1, 2).reshape(rows.shape)


def to_halves(rows: Array, heads: int) -> Array:
    """Reorder from pairs to halves: the inverse of `to_pairs`."""
    half = rows.shape[0] // heads // 2
    return rows.reshape(heads, half, 2, -1).swapaxes(1, 2).reshape(rows.shape)
