"""Computes dot products of rows of codes in blocks (the op block_linear), for a few tokens, in
integers (see `integers`).

Codes count from their middle, so a weight is step * scale * code + offset, where the offset of a
group is the middle less its minimum: the groups' sums of x are made once a call.
"""

from typing import Any, NamedTuple

import numpy as np

from cpu_numba.kernels.compiled import int4, packed
from cpu_numba.kernels.compiled.groups import group_sums
from cpu_numba.kernels.compiled.int4 import transpose
from cpu_numba.kernels.compiled.integers import floats, load_words, nothing
from cpu_numba.kernels.compiled.jit import njit
from cpu_numba.kernels.compiled.naming import named
from cpu_numba.kernels.compiled.rounding import FINER, round_row
from cpu_numba.kernels.compiled.simd import (
    fma,
    get,
    load,
    load_some,
    prefetch,
    put,
    splat,
    total,
)
from cpu_numba.kernels.compiled.work_queue import shared_rows

ROUNDED = 32  # columns of x that share a scale


class Blocks(NamedTuple):
    """Holds what a product takes beside x: codes [N,K/2]; what is absent is None; bias [N] or
    empty; out [T,N]; N, and how many pieces of work it is."""

    codes: Any
    high: Any
    steps: Any
    scales: Any
    min_steps: Any
    minimums: Any
    bias: Any
    out: Any
    rows: int
    pieces: int


class Met(NamedTuple):
    """Holds x as products meet it: in integers (see `rounding.Rounded`) and their scales; in the
    order of lanes with where their sums begin and their scales (see `int4.Transposed`); the sums of
    its groups."""

    first: Any
    second: Any
    x_scales: Any
    lane_first: Any
    begins: Any
    lane_second: Any
    second_begins: Any
    lane_scales: Any
    sums: Any


def _dot(bits, group, block):
    """Make dot(...) for that form."""
    (times, _, many_times), each = packed.OF[bits], 8 // (bits - 4) if bits > 4 else 2
    parts, some = int4.CODES // group, packed.COUNT // group

    @njit(_nrt=False, forceinline=True)
    @named("dot", bits, group, block)
    def dot(first, second, x_scales, lane_first, begins, lane_second, second_begins, lane_scales,
            t, codes, high, steps, scales, n, size):
        """Return the product of token t with row n, but for the offsets: of 128 columns at a time,
        then of 32."""
        p, rest = splat(np.float32(0)), splat(np.float32(1) / FINER)
        whole = size // int4.CODES * int4.CODES
        for k in range(0, whole, int4.CODES):
            i, at = n * size + k, t * size + k
            prefetch(codes, i // 2, 64, 4096)
            y = floats(many_times(codes, i // 2, high, i // each, lane_first, at,
                                  load_words(begins, at // 8)))
            if second is not None:
                finer = many_times(codes, i // 2, high, i // each, lane_second, at,
                                   load_words(second_begins, at // 8))
                y = fma(floats(finer), rest, y)
            if scales is None:
                scale = packed.spread_small(steps, i // block, parts)
            else:
                scale = packed.spread_small(scales, i // group, parts) * splat(
                    get(steps, i // block))
            p = fma(y, scale * load(lane_scales, at // 8), p)
        for k in range(whole, size, packed.COUNT):
            i, at = n * size + k, t * size + k
            y = floats(times(codes, i // 2, high, i // each, first, at, nothing()))
            if second is not None:
                finer = times(codes, i // 2, high, i // each, second, at, nothing())
                y = fma(floats(finer), rest, y)
            scale = splat(get(steps, i // block) * x_scales[at // ROUNDED])
            if scales is not None:
                scale = scale * packed.spread_small(scales, i // group, some)
            p = fma(y, scale, p)
        return total(p)
    return dot


def _offset(groups, middle):
    """Make offset(...) for blocks of so many groups with scales of their own, or of one."""
    @njit(_nrt=False, forceinline=True)
    @named("offset", groups, middle)
    def offset(steps, scales, min_steps, minimums, sums, n, t, blocks):
        """Return the sum of every group's offset times its sum of x."""
        row = splat(np.float32(0))
        if scales is None:
            for b in range(0, blocks, 16):
                many, at = min(16, blocks - b), n * blocks + b
                part = load_some(steps, at, many) * splat(middle)
                row = fma(part - load_some(min_steps, at, many),
                          load_some(sums, t * blocks + b, many), row)
            return total(row)
        for b in range(blocks):
            at = n * blocks + b
            part = packed.load_small(scales, at * groups, groups) * splat(get(steps, at) * middle)
            least = packed.load_small(minimums, at * groups, groups) * splat(get(min_steps, at))
            row = fma(part - least, load_some(sums, (t * blocks + b) * groups, groups), row)
        return total(row)
    return offset


def _make(bits, group, block):
    """Make the product of codes of that form."""
    dot, middle = _dot(bits, group, block), 1 << bits - 1
    offset = _offset(block // group, np.float32(middle))

    @njit(_nrt=False, forceinline=True)
    @named("settled", bits, group, block)
    def settled(x, codes, high, steps, scales, min_steps, minimums, t, n, size):
        one, two, x_scales, three, begins, four, more, lane_scales, sums = x
        y = dot(one, two, x_scales, three, begins, four, more, lane_scales, t, codes, high, steps,
                scales, n, size)
        if min_steps is not None:
            y += offset(steps, scales, min_steps, minimums, sums, n, t, size // block)
        return y

    @njit(_nrt=False, forceinline=True)
    @named("rows", bits, group, block)
    def rows(n, x, matrix, sizes):
        tokens, size = sizes
        codes, high, steps, scales, min_steps, minimums, bias, out, count, _ = matrix
        for t in range(tokens):
            y = settled(x, codes, high, steps, scales, min_steps, minimums, t, n, size)
            put(out, t * count + n, y + bias[n] if bias.size else y)

    loop = shared_rows(rows)

    @njit
    @named("product", bits, group, block)
    def product(how, x, scratch, met, matrix, sums, sizes):
        """Compute out[t,n] = x[t] · w[n] + bias[n]. `scratch` and `met` are for x; `sums` says
        whether there are minimums; `sizes` are T and K."""
        tokens, size = sizes
        if sums:
            group_sums(x, met.sums, tokens, size, group)
        for t in range(tokens):
            round_row(x, t, size, ROUNDED, scratch)
            transpose(met.first, met.lane_first, met.begins, t * size, size, middle)
            transpose(met.second, met.lane_second, met.second_begins, t * size, size, middle)
        for i in range(tokens * size // 8):
            met.lane_scales[i] = met.x_scales[8 * i // ROUNDED]
        loop(how, met, matrix, matrix, matrix, sizes)
    return product


#: (bits, columns of a group, of a block) -> the product
PRODUCTS = {form: _make(*form) for form in packed.FORMS}
