"""Quantises rows of weights by groups, with the bits of `core.ops.quantized.quantize`: the same
operations of float32 in the same order, each rounded once."""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from cpu_numba.kernels.compiled import emit
from cpu_numba.kernels.compiled.integers import nearest
from cpu_numba.kernels.compiled.jit import njit
from cpu_numba.kernels.compiled.rows import MANY
from cpu_numba.kernels.compiled.simd import fma, lanes, larger, largest, load, splat, total
from cpu_numba.kernels.compiled.spread import on_threads

_NORMAL = np.finfo(np.float32).tiny  # as there: with less, or with zeros beyond, codes are clipped
_EXACT = np.float32(1 << 18)
_HALF = emit.WIDTH // 2


@intrinsic
def put_codes(typing_context, codes, index, value):
    """Store lanes of whole numbers as the codes from `index` on: bytes, or two to a byte."""
    def code(context, builder, signature, args):
        array, place, number = args
        small = builder.trunc(builder.fptosi(number, emit.WORDS),
                              ir.VectorType(ir.IntType(8), emit.WIDTH))
        if codes.dtype == types.uint8:
            place = builder.lshr(place, emit.I64(1))
            low, high = (builder.shuffle_vector(small, small, ir.Constant(
                ir.VectorType(emit.I32, _HALF), list(range(first, emit.WIDTH, 2))))
                for first in (0, 1))
            small = builder.or_(low, builder.shl(high, ir.Constant(low.type, [4] * _HALF)))
        target = emit.pointer(context, builder, codes, array, place, small.type)
        builder.store(small, target).align = 1
        return context.get_dummy_value()
    return types.void(codes, types.intp, lanes), code


@njit(_nrt=False, error_model="numpy")
def quantize_group(w, start, codes, at, group, lowest, steps, symmetric):
    """Set the codes of w[start : start + group]; return scale, zero, and a sum that is NaN where a
    number is infinite or NaN. Symmetric codes count from `lowest`, of -steps to steps."""
    none = splat(np.float32(0))
    less, most, bad = none, none, none  # the largest of -w and of w
    if not symmetric:
        most = load(w, start)
        less = none - most
    for i in range(start, start + group, 16):
        v = load(w, i)
        most, less = larger(most, v), larger(less, none - v)
        bad = fma(v, none, bad)
    zero = lowest
    if symmetric:
        scale = largest(larger(most, less)) / steps
    else:
        low = -largest(less)
        scale = (largest(most) - low) / steps
        zero = lowest - low / scale
    by, away = splat(scale), splat(zero)
    for i in range(0, group, 16):
        v = load(w, start + i) / by
        put_codes(codes, at + i, nearest(v) + away if symmetric else nearest(v + away))
    return scale, zero, total(bad)


@njit(_nrt=False)
def quantize_row(n, w, codes, scales, zeros, left, size, group, lowest, steps):
    for g in range(size // group):
        start = n * size + g * group
        scale, zero, bad = quantize_group(w, start, codes, start, group, lowest, steps,
                                          zeros.size == 0)
        place = n * (size // group) + g
        scales[place] = scale
        if zeros.size:
            zeros[place] = zero
        if not (scale >= _NORMAL and abs(zero) <= _EXACT and bad == 0):
            left[n] = 1


@njit
def quantize(w, codes, scales, zeros, left, size, group, lowest, steps):
    """Quantise all rows of `size` elements; `left` becomes 1 for those that need more care."""
    on_threads(quantize_row, left.size, w.size < MANY,
               (w, codes, scales, zeros, left, size, group, lowest, steps))
