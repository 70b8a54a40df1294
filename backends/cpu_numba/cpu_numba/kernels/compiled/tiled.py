"""Multiplies many tokens on AMX's tiles: packs 32 rows of weights into a thread's own scratch, and
multiplies them by 32 tokens at a time, whose sums stay in tiles over all columns.

Weights are the first factor, so that their rows need no transposing; tokens are transposed once a
call, and sums, [rows, tokens], as they leave.
"""

import numpy as np

from cpu_numba.kernels.compiled.amx import (
    SIDE,
    TILE,
    add_one,
    add_two,
    begin_tiles,
    end_tiles,
    leave_sums,
    no_sums,
)
from cpu_numba.kernels.compiled.halves import copy_pairs, split_codes
from cpu_numba.kernels.compiled.jit import njit
from cpu_numba.kernels.compiled.naming import named
from cpu_numba.kernels.compiled.simd import load, load_some, prefetch, store, store_some
from cpu_numba.kernels.compiled.spread import on_threads
from cpu_numba.kernels.compiled.transpose import transpose, turn
from cpu_numba.kernels.compiled.work_queue import claim

ROWS = BLOCK = 2 * SIDE  # rows of weights, and tokens, whose sums stay in tiles
COLUMNS = 2 * SIDE  # of a tile
AHEAD = 512  # bytes of a row that are asked for before they are packed


@njit(_nrt=False)
def _pack_tokens(i, x, packed, tokens, size, steps):
    """Transpose the i-th tile of tokens, of `steps` to 16 tokens: to pairs of columns by tokens."""
    first, column = i // steps * SIDE, i % steps * COLUMNS
    transpose(x, first * size + column, size, min(SIDE, tokens - first), size - column, packed,
              i * TILE, SIDE, SIDE)


@njit(_nrt=False)
def _finish(sums, bias, out, first, count, token, tokens, rows):
    """Store the sums of `count` rows from `first` on and of a block of tokens from `token` on."""
    for tile in range(4):
        n, t = tile // 2 * SIDE, tile % 2 * SIDE
        some = min(SIDE, count - n)
        if some > 0 and token + t < tokens:
            turn(sums, tile * TILE)
            for i in range(min(SIDE, tokens - token - t)):
                value, at = load(sums, tile * TILE + i * SIDE), first + n
                if bias.size:
                    value = value + load_some(bias, at, some)
                at += (token + t + i) * rows
                if some == SIDE:
                    store(out, at, value)
                else:
                    store_some(out, at, value, some)


def product_of(name, parts, fill):
    """Make the product of a kind of matrix whose weights are sums of `parts` numbers of bf16.

    fill(matrix, first, count, size, steps, panel)  packs rows: for each step of 32 columns and each
                                                    part two tiles
    """
    @njit(_nrt=False)
    @named(name, "multiply")
    def multiply(panel, packed, token, tokens, steps):
        """Sum up the products of the panel and a block of tokens from `token` on."""
        no_sums()
        here, skip = token // SIDE * steps * TILE, steps * TILE
        if token + SIDE < tokens:
            for step in range(steps):
                for part in range(parts):
                    add_two(panel, (step * parts + part) * 2 * TILE, packed, here, skip)
                here += TILE
        else:
            for step in range(steps):
                for part in range(parts):
                    add_one(panel, (step * parts + part) * 2 * TILE, packed, here, skip)
                here += TILE

    @njit(_nrt=False)
    @named(name, "share")
    def share(i, matrix, bias, out, packed, panels, totals, tokens, rows, size, steps, chunk,
              counter):
        """Compute one piece after another, as long as there are unclaimed ones: 32 rows by `chunk`
        tokens."""
        n, chunks = steps * parts * 2 * TILE, -(-tokens // chunk)
        panel, sums = panels[i * n:(i + 1) * n], totals[4 * i * TILE:4 * (i + 1) * TILE]
        begin_tiles()
        piece = claim(counter, 1)
        while piece // chunks * ROWS < rows:
            first, start = piece // chunks * ROWS, piece % chunks * chunk
            count = min(ROWS, rows - first)
            fill(matrix, first, count, size, steps, panel)
            for token in range(start, min(tokens, start + chunk), BLOCK):
                multiply(panel, packed, token, tokens, steps)
                leave_sums(sums, 0)
                _finish(sums, bias, out, first, count, token, tokens, rows)
            piece = claim(counter, 1)
        end_tiles()

    @njit
    @named(name, "product")
    def product(x, matrix, bias, out, packed, panels, totals, tokens, rows, size, chunk, threads,
                counter):
        """Compute out[t,n] = x[t] · w[n] + bias[n]. The scratch: `packed` for x, and for each
        thread a piece of `panels` and of `totals`."""
        counter[0] = 0
        steps = -(-size // COLUMNS)
        on_threads(_pack_tokens, -(-tokens // SIDE) * steps, False,
                   (x, packed, tokens, size, steps))
        on_threads(share, threads, False, (matrix, bias, out, packed, panels, totals, tokens, rows,
                                           size, steps, chunk, counter))
    return product


@njit(_nrt=False)
def _fill_floats(weights, first, count, size, steps, panel):
    for step in range(steps):
        for n in range(count):
            place = (first + n) * size + step * COLUMNS
            prefetch(weights, place, 1, AHEAD)
            copy_pairs(weights, place, min(COLUMNS, size - step * COLUMNS), panel,
                       (step * ROWS + n) * SIDE)


@njit(_nrt=False)
def _fill_codes(matrix, first, count, size, steps, panel):
    codes, scales, zeros, each, group = matrix
    packed, groups = -(-size // each), -(-size // group)
    for step in range(steps):
        for n in range(count):
            place = (first + n) * packed + step * COLUMNS // each
            factor = (first + n) * groups + step * COLUMNS // group
            prefetch(codes, place, 1, AHEAD)
            split_codes(codes, place, min(COLUMNS, size - step * COLUMNS),
                        zeros[factor] - np.float32(8 * (each - 1)) if zeros.size
                        else np.float32(0), scales[factor], panel,
                        (2 * step * ROWS + n) * SIDE, 2 * TILE)


#: of weights in bf16; of codes: a tuple of codes [N,K] or [N,K/2], scales [N,G], zeros [N,G] or
#: empty, codes to a byte, and columns of a group, whole steps
floats, codes = product_of("floats", 1, _fill_floats), product_of("codes", 2, _fill_codes)
