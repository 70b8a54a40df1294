"""Rotates pairs of elements by angles: serially if they are few, where waking threads would cost
more than the work, and on all threads if they are many."""

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from cpu_numba.kernels.compiled import emit
from cpu_numba.kernels.compiled.jit import njit
from cpu_numba.kernels.compiled.simd import lanes, load, load_some, splat, store, store_some
from cpu_numba.kernels.compiled.spread import on_threads

_DOUBLES = ir.VectorType(ir.DoubleType(), emit.WIDTH)
_LONGS = ir.VectorType(emit.I64, emit.WIDTH)
_ROUND = 1.5 * 2.0 ** 52  # adding it leaves the nearest integer in the low bits
#: what pi / 2 is more than the nearest double: with it, angles up to 2^31 lose less than 2^-50
_REST = 6.123233995736766e-17
#: Coefficients of Cephes' sinf and cosf, for angles of up to pi / 4.
_SIN = -1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1
_COS = 2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2


@intrinsic
def cos_sin(typing_context, angle):
    """Return the cosines and the sines of lanes, each within 2^-23."""
    def code(context, builder, signature, args):
        def doubles(number):
            return ir.Constant(_DOUBLES, [number] * emit.WIDTH)

        def floats(number):
            return ir.Constant(emit.FLOATS, [number] * emit.WIDTH)

        def fma(a, b, c, kind="f64"):
            return emit.call(builder, f"llvm.fma.v16{kind}", a.type, [a, b, c])

        def series(powers, square):
            found = floats(powers[0])
            for power in powers[1:]:
                found = fma(found, square, floats(power), "f32")
            return found

        exact = builder.fpext(args[0], _DOUBLES)
        shifted = fma(exact, doubles(2 / math.pi), doubles(_ROUND))
        quarters = builder.fsub(shifted, doubles(_ROUND))
        rest = fma(quarters, doubles(-math.pi / 2), exact)
        rest = builder.fptrunc(fma(quarters, doubles(-_REST), rest), emit.FLOATS)
        square = builder.fmul(rest, rest)
        sine = fma(builder.fmul(series(_SIN, square), square), rest, rest, "f32")
        cosine = fma(builder.fmul(series(_COS, square), square), square,
                     fma(square, floats(-0.5), floats(1.0), "f32"), "f32")
        quarter = builder.trunc(builder.bitcast(shifted, _LONGS), emit.WORDS)
        odd = builder.icmp_signed("!=", builder.and_(quarter, emit.words(1)), emit.words(0))

        def signed(value, turns):
            """Return `value` with the other sign in every third and fourth quarter."""
            sign = builder.shl(builder.and_(turns, emit.words(2)), emit.words(30))
            return builder.bitcast(builder.xor(builder.bitcast(value, emit.WORDS), sign),
                                   emit.FLOATS)
        return context.make_tuple(builder, signature.return_type, [
            signed(builder.select(odd, sine, cosine), builder.add(quarter, emit.words(1))),
            signed(builder.select(odd, cosine, sine), quarter)])
    return types.UniTuple(lanes, 2)(lanes), code


@intrinsic
def twice(typing_context, value):
    """Return each of the first eight lanes twice in a row."""
    def code(context, builder, signature, args):
        order = ir.Constant(emit.WORDS, [lane // 2 for lane in range(emit.WIDTH)])
        return builder.shuffle_vector(args[0], args[0], order)
    return lanes(lanes), code


@intrinsic
def turned(typing_context, value):
    """Return (-b, a) for each pair of lanes (a, b)."""
    def code(context, builder, signature, args):
        negative = builder.fneg(args[0])
        order = [lane - 1 if lane % 2 else emit.WIDTH + lane + 1 for lane in range(emit.WIDTH)]
        return builder.shuffle_vector(args[0], negative, ir.Constant(emit.WORDS, order))
    return lanes(lanes), code


@njit(_nrt=False)
def rotate_halves(start, x, angle, frequencies, out, heads, half):
    """Rotate the pairs (x[i], x[half + i]) of each head."""
    for i in range(0, half - half % 16, 16):
        c, s = cos_sin(splat(angle) * load(frequencies, i))
        for at in range(start + i, start + i + 2 * heads * half, 2 * half):
            a, b = load(x, at), load(x, at + half)
            store(out, at, a * c - b * s)
            store(out, at + half, b * c + a * s)
    n = half % 16
    if n:
        c, s = cos_sin(splat(angle) * load_some(frequencies, half - n, n))
        for at in range(start + half - n, start + half - n + 2 * heads * half, 2 * half):
            a, b = load_some(x, at, n), load_some(x, at + half, n)
            store_some(out, at, a * c - b * s, n)
            store_some(out, at + half, b * c + a * s, n)


@njit(_nrt=False)
def rotate_neighbours(start, x, angle, frequencies, out, heads, half):
    """Rotate the pairs (x[2i], x[2i + 1]) of each head."""
    for i in range(0, half - half % 8, 8):
        c, s = cos_sin(splat(angle) * twice(load_some(frequencies, i, 8)))
        for at in range(start + 2 * i, start + 2 * i + 2 * heads * half, 2 * half):
            pairs = load(x, at)
            store(out, at, pairs * c + turned(pairs) * s)
    n = half % 8
    if n:
        c, s = cos_sin(splat(angle) * twice(load_some(frequencies, half - n, n)))
        for at in range(start + 2 * (half - n), start + 2 * (half - n) + 2 * heads * half,
                        2 * half):
            pairs = load_some(x, at, 2 * n)
            store_some(out, at, pairs * c + turned(pairs) * s, 2 * n)


@njit(_nrt=False)
def rotate_token(t, x, positions, frequencies, out, heads, half, interleaved):
    start, angle = 2 * t * heads * half, np.float32(positions[t])
    if interleaved:
        rotate_neighbours(start, x, angle, frequencies, out, heads, half)
    else:
        rotate_halves(start, x, angle, frequencies, out, heads, half)


@njit
def rotate(x, positions, frequencies, out, tokens, heads, half, interleaved):
    """Rotate the pairs of each head by position * frequency, the angle rounded to float32."""
    for t in range(tokens):
        rotate_token(t, x, positions, frequencies, out, heads, half, interleaved)


@njit
def rotate_many(x, positions, frequencies, out, tokens, heads, half, interleaved):
    on_threads(rotate_token, tokens, False, (x, positions, frequencies, out, heads, half,
                                             interleaved))
