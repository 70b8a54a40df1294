"""Products of many tokens: panels of 64 rows of weights, expanded 1024 columns at a time into a
scratch that stays in the second cache, are multiplied by six tokens at a time from the first.

On the machine this was measured on that is faster than expanding for BLAS, whose threads also fight
for the cores with Numba's: each waits for work in a busy loop.
"""

import numpy as np
from numba import njit, prange

from cpu_numba.kernels.compiled.dot import dot
from cpu_numba.kernels.compiled.expand import codes_row, nibbles_row
from cpu_numba.kernels.compiled.rows import convert_row
from cpu_numba.kernels.compiled.tile import ROWS, by_one, by_six, by_two

PANEL, DEPTH = 64, 1024  # rows and columns of weights expanded at a time: 256 KiB


@njit
def begin(out, bias, first, count, tokens, rows):
    """The panel's part of `out` before any product is added."""
    for t in range(tokens):
        for n in range(first, first + count):
            out[t * rows + n] = bias[n] if bias.size else np.float32(0)


@njit
def multiply(x, panel, out, tokens, rows, first, count, size, column, depth):
    """out[:, first:first + count] += x[:, column:column + depth] times the panel."""
    tiled = count // ROWS * ROWS
    t = 0
    while t < tokens:
        at, here = t * size + column, t * rows + first
        for n in range(0, tiled, ROWS):
            if tokens - t >= 6:
                by_six(x, at, size, panel, n * DEPTH, DEPTH, depth, out, here + n, rows)
            elif tokens - t >= 2:
                by_two(x, at, size, panel, n * DEPTH, DEPTH, depth, out, here + n, rows)
            else:
                by_one(x, at, size, panel, n * DEPTH, DEPTH, depth, out, here + n, rows)
        t += 6 if tokens - t >= 6 else 2 if tokens - t >= 2 else 1
    for n in range(tiled, count):
        for t in range(tokens):
            out[t * rows + first + n] += dot(panel, n * DEPTH, x, t * size + column, depth)


@njit(parallel=True, cache=True)
def product(x, weight, bias, out, panels, tokens, rows, size, workers):
    """out[t,n] = x[t] · weight[n] + bias[n]."""
    for worker in prange(workers):
        panel = panels[worker * PANEL * DEPTH:(worker + 1) * PANEL * DEPTH]
        for first in range(worker * PANEL, rows, workers * PANEL):
            count = min(PANEL, rows - first)
            begin(out, bias, first, count, tokens, rows)
            for column in range(0, size, DEPTH):
                depth = min(DEPTH, size - column)
                for n in range(count):
                    convert_row(weight, (first + n) * size + column, panel, n * DEPTH, depth)
                multiply(x, panel, out, tokens, rows, first, count, size, column, depth)


@njit(parallel=True, cache=True)
def product8(x, codes, scales, zeros, bias, out, panels, tokens, rows, size, group, workers):
    """The same over bytes."""
    groups = -(-size // group)
    for worker in prange(workers):
        panel = panels[worker * PANEL * DEPTH:(worker + 1) * PANEL * DEPTH]
        for first in range(worker * PANEL, rows, workers * PANEL):
            count = min(PANEL, rows - first)
            begin(out, bias, first, count, tokens, rows)
            for column in range(0, size, DEPTH):
                depth = min(DEPTH, size - column)
                for n in range(count):
                    codes_row(codes, (first + n) * size, scales, zeros, (first + n) * groups, group,
                              column, depth, panel, n * DEPTH)
                multiply(x, panel, out, tokens, rows, first, count, size, column, depth)


@njit(parallel=True, cache=True)
def product4(x, codes, scales, zeros, bias, out, panels, tokens, rows, size, group, workers):
    """The same over nibbles."""
    groups, packed = -(-size // group), (size + 1) // 2
    for worker in prange(workers):
        panel = panels[worker * PANEL * DEPTH:(worker + 1) * PANEL * DEPTH]
        for first in range(worker * PANEL, rows, workers * PANEL):
            count = min(PANEL, rows - first)
            begin(out, bias, first, count, tokens, rows)
            for column in range(0, size, DEPTH):
                depth = min(DEPTH, size - column)
                for n in range(count):
                    nibbles_row(codes, (first + n) * packed, scales, zeros, (first + n) * groups,
                                group, column, depth, panel, n * DEPTH)
                multiply(x, panel, out, tokens, rows, first, count, size, column, depth)
