"""Puts 32 elements of a row of weights into pairs of bf16: weights in bf16 as they are, those of
codes as a sum of two.

The first takes the upper half of a weight's float32, the second what is left, rounded: both keep 16
bits, where one would lose as much as rounding a result to bf16 does.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from cpu_numba.kernels.compiled import emit, pairs
from cpu_numba.kernels.compiled.transpose import nibbles

_COUNT = 2 * emit.WIDTH
_FLOATS, _INTS = (ir.VectorType(t, _COUNT) for t in (emit.F32, emit.I32))
_SHORTS = ir.VectorType(ir.IntType(16), _COUNT)


@intrinsic
def copy_pairs(typing_context, source, index, count, target, at):
    """Set target[at : at + 16], words, to `count` elements of bf16, 32 at most, and zeros."""
    def code(context, builder, signature, args):
        array, place, some, out, there = args
        value = emit.read(context, builder, source, array, place, some, _COUNT)
        emit.write_words(context, builder, target, out, there,
                         builder.bitcast(value, emit.WORDS))
        return context.get_dummy_value()
    return types.void(source, types.intp, types.intp, target, types.intp), code


@intrinsic
def split_codes(typing_context, codes, index, count, zero, scale, target, at, second):
    """Set target[at : at + 16] and target[at + second : ...], words, to the two parts of
    scale * (code - zero), of `count` codes, 32 at most. Codes of 4 bits count from 8."""
    def code(context, builder, signature, args):
        array, place, some, away, factor, out, there, apart = args
        if codes.dtype == types.uint8:
            words = nibbles(context, builder, codes, array, place, target, some)
            value = _wide(builder, builder.bitcast(words, _SHORTS))
        else:
            value = builder.sitofp(builder.sext(emit.read(
                context, builder, codes, array, place, some, _COUNT), _INTS), _FLOATS)
        value = builder.fmul(builder.fsub(value, _everywhere(builder, away)),
                             _everywhere(builder, factor))
        upper = builder.trunc(builder.lshr(builder.bitcast(value, _INTS), _INTS([16] * _COUNT)),
                              _SHORTS)
        rest = builder.fsub(value, _wide(builder, upper))
        emit.write_words(context, builder, target, out, there,
                         builder.bitcast(upper, emit.WORDS))
        emit.write_words(context, builder, target, out, builder.add(there, apart),
                         pairs.rounded(builder, rest))
        return context.get_dummy_value()
    return types.void(codes, types.intp, types.intp, types.float32, types.float32, target,
                      types.intp, types.intp), code


def _wide(builder, shorts):
    """Return bits of bf16 as float32."""
    return builder.bitcast(builder.shl(builder.zext(shorts, _INTS), _INTS([16] * _COUNT)), _FLOATS)


def _everywhere(builder, number):
    one = builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), number, emit.I32(0))
    return builder.shuffle_vector(one, one, _INTS([0] * _COUNT))
