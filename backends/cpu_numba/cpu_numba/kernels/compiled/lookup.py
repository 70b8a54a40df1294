"""Expands rows of tables of codes: each row in float32 into a scratch, then in the result's type.

A product and a difference are rounded one after the other, as the definition in float32 does: the
result has the bits of a row of the expanded table.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from cpu_numba.kernels.compiled.rows import convert_row
from cpu_numba.kernels.compiled.simd import first, load_some


class Blocks(NamedTuple):
    """Holds the parts of block_linear, flat; absent ones have no elements."""

    codes: Any
    high: Any
    steps: Any
    scales: Any
    min_steps: Any
    minimums: Any


@njit
def groups(ids, codes, scales, zeros, out, row, width, count, bits, group):
    """Set out[t] = scale * (code - zero), of `width` bytes and `count` groups a row."""
    size = row.size
    for t in range(ids.size):
        codes_at, scales_at = ids[t] * width, ids[t] * count
        for k in range(size):
            if bits == 8:
                code, zero = np.float32(np.int8(codes[codes_at + k])), np.float32(0)
            else:
                code = np.float32(codes[codes_at + k // 2] >> (k % 2 * 4) & 15)
                zero = np.float32(8)
            if zeros.size:
                zero = zeros[scales_at + k // group]
            row[k] = (code - zero) * scales[scales_at + k // group]
        convert_row(row, 0, out, t * size, size)


@njit
def blocks(ids, table, out, row, bits, group, block):
    """Set out[t] = step * scale * code - min_step * minimum."""
    size, above = row.size, bits - 4
    middle = np.float32(0 if table.min_steps.size else 1 << bits - 1)
    each, mask = 8 // max(1, above), (1 << above) - 1
    for t in range(ids.size):
        start = ids[t] * size
        for begin in range(0, size, group):
            step = first(load_some(table.steps, (start + begin) // block, 1))
            least = np.float32(0)
            if table.scales.size:
                step *= np.float32(table.scales[(start + begin) // group])
            if table.min_steps.size:
                least = first(load_some(table.min_steps, (start + begin) // block, 1))
                if table.minimums.size:
                    least *= np.float32(table.minimums[(start + begin) // group])
            for k in range(begin, begin + group):
                code = table.codes[(start + k) // 2] >> (k % 2 * 4) & 15
                if above:
                    code |= (table.high[(start + k) // each] >> (k % each * above) & mask) << 4
                row[k] = (np.float32(code) - middle) * step - least
        convert_row(row, 0, out, t * size, size)
