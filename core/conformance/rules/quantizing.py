"""Compares `Backend.quantize` with the definition, whose bits weights have, whoever makes them."""

from __future__ import annotations

from itertools import product

import numpy as np

from core.ops.quantized.quantize import quantize
from core.plugins.backend import Backend
from core.tensor.dtype import bf16, f16, f32
from core.tensor.tensor import Array

SCHEMES = ((8, True), (8, False), (4, True), (4, False))  # bits, symmetric
WIDTHS = ((128, 32), (256, 64), (128, 128), (96, 64), (50, 16))  # columns, columns of a group


def wrong_bits(backend: Backend) -> list[str]:
    """Describe the matrices whose parts differ from the definition's."""
    wrong = []
    for (columns, group), dtype, (bits, symmetric) in product(WIDTHS, (f32, f16, bf16), SCHEMES):
        with np.errstate(all="ignore"):
            weight = _rows(columns).astype(dtype.numpy)
            made, right = (quantize(weight, bits, group, symmetric=symmetric, by=by)
                           for by in (backend.quantize, None))
        if any(a is not None and b is not None and a.tobytes() != b.tobytes() for a, b in (
                (made.codes, right.codes), (made.scales, right.scales), (made.zeros, right.zeros))):
            wrong.append(f"{dtype} [{len(weight)}, {columns}] to {bits} bits in groups of {group}"
                         f"{'' if symmetric else ', with zeros'}")
    return wrong


def _rows(columns: int) -> Array:
    """Make usual rows, and rows of zeros, of one number, of a few large, tiny and infinite ones."""
    rng = np.random.default_rng(columns)
    rows: Array = rng.normal(0, 0.02, (40, columns))
    rows[1], rows[2], rows[3] = 0, 0.5, rows[3] * 1e-38
    rows[4, ::7], rows[5, 3], rows[6, -1] = 1000, np.inf, np.nan
    return rows
