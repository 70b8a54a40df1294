"""Multiplies many tokens: transposes and widens ROWS rows of weights, a stretch of columns at a
time, into a scratch that stays in the first cache, and multiplies it by twelve tokens at a time,
transposed once.

Codes are multiplied as they are, and a group's sums by its scale: a matrix of floats is one group
with the scale 1. On the machine this was measured on that is faster than expanding for BLAS, whose
threads also fight for the cores with Numba's: each waits for work in a busy loop.
"""

from typing import Any, NamedTuple

import numpy as np

from cpu_numba.kernels.compiled.groups import group_sums
from cpu_numba.kernels.compiled.jit import njit
from cpu_numba.kernels.compiled.naming import named
from cpu_numba.kernels.compiled.rounding import round_row
from cpu_numba.kernels.compiled.simd import fma, load, load_some, prefetch, splat, store, store_some
from cpu_numba.kernels.compiled.spread import on_threads
from cpu_numba.kernels.compiled.tile import GROUPED, ROWS, WHOLE
from cpu_numba.kernels.compiled.transpose import transpose
from cpu_numba.kernels.compiled.work_queue import claim

DEPTH = 128 if ROWS == 64 else 256  # units of weights transposed at a time: 32 or 16 KiB
TOKENS = 12


@njit(_nrt=False)
def block_of(first, tokens):
    """Return how many tokens are multiplied together from `first` on: 12, or 4 or 8 if that is
    enough."""
    return min(TOKENS, (tokens - first + 3) // 4 * 4)


@njit(_nrt=False)
def transpose_tokens(x, transposed, first, tokens, size, unit, units):
    """Transpose a block of tokens to [units, tokens of the block]; tokens beyond the last are 0."""
    many = block_of(first, tokens)
    for column in range(0, size, 16 * unit):
        transpose(x, first * size + column, size, min(many, tokens - first), size - column,
                  transposed, first * units + column // unit * many, many, many)


@njit(_nrt=False)
def transpose_scales(scales, zeros, middle, first, count, groups, transposed, offsets):
    """Transpose the scales of ROWS rows, group by group; offsets are scale * (zero - middle)."""
    for n in range(ROWS):
        for g in range(groups):
            at, place = g * ROWS + n, (first + n) * groups + g
            transposed[at] = np.float32(1)
            if scales is not None and n < count:
                transposed[at] = scales[place]
            if zeros.size:
                offsets[at] = (transposed[at] * (zeros[place] - middle) if n < count
                               else np.float32(0))


@njit(_nrt=False)
def begin(bias, first, count, start, end, sums, groups, offsets, totals):
    """Set the totals of tokens from `start` on as they are before any product is added."""
    for n in range(0, ROWS, 16):
        some = max(0, min(16, count - n))
        begun = load_some(bias, first + n, some) if bias.size else splat(np.float32(0))
        for t in range(start, end):
            value = begun
            if sums.size:
                for g in range(groups):
                    away = splat(np.float32(0)) - load(offsets, g * ROWS + n)
                    value = fma(away, splat(sums[t * groups + g]), value)
            store(totals, (t - start) * ROWS + n, value)


def _multiplier(name, tiles):
    (most, of_twelve), (fewer, of_fewer) = tiles

    @njit(_nrt=False)
    @named(name)
    def multiply(transposed, units, panel, column, depth, unit, group, start, end, tokens, scales,
                 x_scales, totals):
        """Add columns column .. column + depth - 1 of tokens start .. end - 1 times the panel to
        totals, by groups."""
        now, begun = -(-depth // unit), ((column // group + 1) * group - column) // unit
        scale, skip = scales[column // group * ROWS:], x_scales.size // max(1, tokens)
        for first in range(start, end, TOKENS):
            many = block_of(first, tokens)
            x_at = first * units + column // unit * many
            for part in range(0, many, most if many == TOKENS else fewer):
                at, x_scale = (first - start + part) * ROWS, (
                    first + part) * skip + column // group
                if many == TOKENS:
                    of_twelve(transposed, x_at + part, many, panel, now, begun, -(-group // unit),
                              scale, x_scales, x_scale, skip, totals, at)
                else:
                    of_fewer(transposed, x_at + part, many, panel, now, begun, -(-group // unit),
                             scale, x_scales, x_scale, skip, totals, at)
    return multiply


multiply_whole = _multiplier("multiply_whole", WHOLE)
multiply_grouped = _multiplier("multiply_grouped", GROUPED)


@njit(_nrt=False)
def finish(totals, out, first, count, start, end, rows):
    for t in range(start, end):
        for n in range(0, count, 16):
            value = load(totals, (t - start) * ROWS + n)
            if count - n >= 16:
                store(out, t * rows + first + n, value)
            else:
                store_some(out, t * rows + first + n, value, count - n)


@njit(_nrt=False)
def transpose_weights(weights, start, packed, count, column, depth, each, unit, panel):
    """Transpose columns column .. column + depth - 1 of ROWS rows to [units, rows]."""
    for n in range(0, count, 16):
        for i in range(0, depth, 16 * unit):
            place = start + n * packed + (column + i) // each
            for r in range(16):  # what the next panel holds there
                prefetch(weights, place + r * packed + DEPTH * unit // each, 1, 0)
            transpose(weights, place, packed, count - n, depth - i, panel, i // unit * ROWS + n,
                      ROWS, 16)


@njit(_nrt=False)
def make_tokens(b, x, transposed, rounded, tokens, size, units, unit, group):
    """Transpose the b-th block of tokens, rounded to integers where panels hold those."""
    if rounded.scales.size:
        for t in range(b * TOKENS, min(tokens, (b + 1) * TOKENS)):
            round_row(x, t, size, group, rounded)
        transpose_tokens(rounded.first, transposed, b * TOKENS, tokens, size, unit, units)
    else:
        transpose_tokens(x, transposed, b * TOKENS, tokens, size, unit, units)


def product_of(name, fill_scales, fill_panel):
    """Make the product of a kind of matrix, a tuple of arrays whose `steps` are None where a row is
    one group.

    fill_scales(matrix, first, count, size, group, scale, offset)  transposes what multiplies the
                                                                   sums of codes, and those of x
    fill_panel(matrix, room, first, count, size, column, depth, unit, panel)  transposes a panel
    """
    @njit(_nrt=False, forceinline=True)
    @named(name, "multiply")
    def multiply(steps, transposed, units, panel, column, depth, unit, group, start, end, tokens,
                 scale, x_scales, totals):
        if steps is None:  # as an argument: only of them Numba knows what is None
            multiply_whole(transposed, units, panel, column, depth, unit, group, start, end, tokens,
                           scale, x_scales, totals)
        else:
            multiply_grouped(transposed, units, panel, column, depth, unit, group, start, end,
                             tokens, scale, x_scales, totals)

    @njit(_nrt=False)
    @named(name, "share")
    def share(i, threads, matrix, bias, out, transposed, x_scales, panels, rooms, totals, factors,
              sums, tokens, rows, size, units, unit, group, chunk, counter):
        """Compute one piece after another, as long as there are unclaimed ones: ROWS rows by
        `chunk` tokens."""
        groups, span, chunks = -(-size // group), DEPTH * unit, max(1, -(-tokens // chunk))
        n = panels.size // threads
        panel, n = panels[i * n:(i + 1) * n], rooms.size // threads
        room, n = rooms[i * n:(i + 1) * n], totals.size // threads
        total, n = totals[i * n:(i + 1) * n], factors.size // (2 * threads)
        scale, offset = factors[2 * i * n:(2 * i + 1) * n], factors[(2 * i + 1) * n:2 * (i + 1) * n]
        piece = claim(counter, 1)
        while piece // chunks * ROWS < rows:
            first, start = piece // chunks * ROWS, piece % chunks * chunk
            count, end = min(ROWS, rows - first), min(tokens, start + chunk)
            fill_scales(matrix, first, count, size, group, scale, offset)
            begin(bias, first, count, start, end, sums, groups, offset, total)
            for column in range(0, size, span):
                depth = min(span, size - column)
                fill_panel(matrix, room, first, count, size, column, depth, unit, panel)
                multiply(matrix.steps, transposed, units, panel, column, depth, unit, group, start,
                         end, tokens, scale, x_scales, total)
            finish(total, out, first, count, start, end, rows)
            piece = claim(counter, 1)

    @njit
    @named(name, "product")
    def product(x, matrix, bias, out, transposed, panels, rooms, totals, factors, sums, rounded,
                tokens, rows, size, units, unit, group, chunk, threads, counter):
        """Compute out[t,n] = x[t] · w[n] + bias[n]; a unit of the panels is `unit` columns, and
        `transposed` has room for `units`; `chunk` is a multiple of TOKENS. The scratch:
        `transposed` for x, a piece for each thread of `panels`, `rooms` for codes, `totals` and
        `factors`, `sums` of x's groups for zeros, and `rounded` for x in integers, where panels
        hold those."""
        counter[0] = 0
        if sums.size:
            group_sums(x, sums, tokens, size, group)
        on_threads(make_tokens, -(-tokens // TOKENS), False,
                   (x, transposed, rounded, tokens, size, units, unit, group))
        on_threads(share, threads, False,
                   (threads, matrix, bias, out, transposed, rounded.scales, panels, rooms, totals,
                    factors, sums, tokens, rows, size, units, unit, group, chunk, counter))
    return product


class Plain(NamedTuple):
    """Holds weights or codes [N,K] or [N,K/2], scales [N,G] or None as `steps`, zeros [N,G] or
    empty, what they count from, and the columns of an element."""

    weights: Any
    steps: Any
    zeros: Any
    middle: Any
    each: Any


@njit(_nrt=False)
def _plain_scales(matrix, first, count, size, group, scale, offset):
    transpose_scales(matrix.steps, matrix.zeros, matrix.middle, first, count, -(-size // group),
                     scale, offset)


@njit(_nrt=False)
def _plain_panel(matrix, room, first, count, size, column, depth, unit, panel):
    packed = -(-size // matrix.each)
    transpose_weights(matrix.weights, first * packed, packed, count, column, depth, matrix.each,
                      unit, panel)


product = product_of("plain", _plain_scales, _plain_panel)
