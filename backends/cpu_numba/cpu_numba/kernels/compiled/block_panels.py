"""Multiplies many tokens by codes in blocks (the op block_linear): `blocks` with panels that are
put together from nibbles and the bits above them."""

import numpy as np

from cpu_numba.kernels.compiled import packed
from cpu_numba.kernels.compiled.blocks import DEPTH, product_of, transpose_weights
from cpu_numba.kernels.compiled.jit import njit
from cpu_numba.kernels.compiled.naming import named
from cpu_numba.kernels.compiled.simd import get
from cpu_numba.kernels.compiled.tile import ROWS

ROOM = 2 * ROWS * DEPTH  # bytes that a panel's codes take at most


@njit(_nrt=False, forceinline=True)
def _factors(steps, scales, min_steps, minimums, middle, at, block, scale, offset, place):
    """Set the factor of a group's sum of codes, and what its sum of x takes off."""
    factor, least = get(steps, block), np.float32(0)
    if scales is not None:
        factor *= np.float32(scales[at])
    if min_steps is not None:
        least = get(min_steps, block)
        if minimums is not None:
            least *= np.float32(minimums[at])
        offset[place] = least - middle * factor
    scale[place] = factor


def _make(bits, group_size, block_size):
    unpack, each = packed.OF[bits][1], 8 // (bits - 4) if bits > 4 else 2
    middle, many = np.float32(1 << bits - 1), block_size // group_size

    @njit(_nrt=False)
    @named("scales", bits, group_size, block_size)
    def scales_of(matrix, first, count, size, group, scale, offset):
        _, _, steps, scales, min_steps, minimums, _, _, _, _ = matrix
        groups = size // group
        for n in range(ROWS):
            for g in range(groups):
                place, at = g * ROWS + n, (first + min(n, count - 1)) * groups + g
                _factors(steps, scales, min_steps, minimums, middle, at, at // many, scale, offset,
                         place)

    @njit(_nrt=False)
    @named("panel", bits, group_size, block_size)
    def panel_of(matrix, room, first, count, size, column, depth, unit, panel):
        for n in range(count):
            for k in range(0, depth, packed.COUNT):
                i = (first + n) * size + column + k
                unpack(matrix.codes, i // 2, matrix.high, i // each, room, n * depth + k)
        transpose_weights(room, 0, depth, count, 0, depth, 1, unit, panel)
    return product_of(f"blocks_{bits}_{group_size}_{block_size}", scales_of, panel_of)


#: (bits, columns of a group, of a block) -> the product
PRODUCTS = {form: _make(*form) for form in packed.FORMS}
