"""Expands codes and scales to float32, some rows at a time: temporaries stay small beside the
result."""

from __future__ import annotations

import numpy as np

from core.ops.quantize import Quantized
from core.ops.quantized_linear import expand_weight
from core.tensor.tensor import Array

_ELEMENTS = 1 << 22  # expanded at a time


def expand(q: Quantized, columns: int) -> Array:
    """Return the matrix as float32 [N, columns]."""
    n = q.codes.shape[0]
    out = np.empty((n, columns), np.float32)
    step = max(1, _ELEMENTS // max(1, columns))
    for start in range(0, n, step):
        part = slice(start, start + step)
        out[part] = expand_weight(q.codes[part], q.scales[part],
                                  None if q.zeros is None else q.zeros[part], q.bits, q.group_size,
                                  columns)
    return out
