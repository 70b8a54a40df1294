"""Computes by rows: conversion, sums, norms; on all threads where there are many elements."""

import math

import numpy as np

from cpu_numba.kernels.compiled.jit import njit
from cpu_numba.kernels.compiled.simd import fma, load, load_some, splat, store, store_some, total
from cpu_numba.kernels.compiled.spread import on_threads

MANY = 1 << 15  # elements from which all threads are worth waking (some 10 µs)


@njit(_nrt=False)
def convert_row(source, start, target, first, size):
    """Set target[first + i] = source[start + i] in the target's type."""
    whole = size // 16 * 16
    for i in range(0, whole, 16):
        store(target, first + i, load(source, start + i))
    if whole < size:
        rest = size - whole
        store_some(target, first + whole, load_some(source, start + whole, rest), rest)


@njit(_nrt=False)
def fill(target, first, size):
    """Set target[first:first + size] = 0."""
    for i in range(first, first + size):
        target[i] = 0


@njit(_nrt=False)
def gather_row(t, ids, table, out, size):
    convert_row(table, ids[t] * size, out, t * size, size)


@njit
def gather(ids, table, out, tokens, size):
    """Set out[t] = table[ids[t]]."""
    on_threads(gather_row, tokens, tokens * size < MANY, (ids, table, out, size))


@njit(_nrt=False)
def add_row(a, b, out, start, size):
    whole = start + size // 16 * 16
    for i in range(start, whole, 16):
        store(out, i, load(a, i) + load(b, i))
    rest = start + size - whole
    if rest:
        store_some(out, whole, load_some(a, whole, rest) + load_some(b, whole, rest), rest)


@njit(_nrt=False)
def add_token(t, a, b, out, size):
    add_row(a, b, out, t * size, size)


@njit
def add(a, b, out, rows, size):
    on_threads(add_token, rows, rows * size < MANY, (a, b, out, size))


@njit(_nrt=False)
def norm_row(x, weight, out, start, size, eps):
    squares = splat(np.float32(0))
    whole = size // 16 * 16
    rest = size - whole
    for i in range(0, whole, 16):
        v = load(x, start + i)
        squares = fma(v, v, squares)
    if rest:
        v = load_some(x, start + whole, rest)
        squares = fma(v, v, squares)
    scale = splat(np.float32(1) / math.sqrt(total(squares) / np.float32(size) + eps))
    for i in range(0, whole, 16):
        store(out, start + i, load(x, start + i) * scale * load(weight, i))
    if rest:
        v = load_some(x, start + whole, rest) * scale * load_some(weight, whole, rest)
        store_some(out, start + whole, v, rest)


@njit(_nrt=False)
def norm_token(t, x, weight, out, size, eps):
    norm_row(x, weight, out, t * size, size, eps)


@njit
def norm(x, weight, out, rows, size, eps):
    """Compute out = x / sqrt(mean(x²) + eps) * weight, by rows."""
    on_threads(norm_token, rows, rows * size < MANY, (x, weight, out, size, eps))


@njit(_nrt=False)
def add_norm_token(t, a, b, weight, added, out, size, eps):
    add_row(a, b, added, t * size, size)
    norm_row(added, weight, out, t * size, size, eps)


@njit
def add_norm(a, b, weight, added, out, rows, size, eps):
    """Compute added = a + b; out = norm(added)."""
    on_threads(add_norm_token, rows, rows * size < MANY, (a, b, weight, added, out, size, eps))


@njit(_nrt=False)
def add_norm_wide(a, b, weight, added, wide, rows, size, eps):
    """Compute added = a + b; wide = norm(a + b) in float32, of the sum before `added` rounds it."""
    for t in range(rows):
        add_row(a, b, wide, t * size, size)
        convert_row(wide, t * size, added, t * size, size)
        norm_row(wide, weight, wide, t * size, size, eps)
