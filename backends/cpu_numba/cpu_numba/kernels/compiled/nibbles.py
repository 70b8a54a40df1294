"""Lanes from packed 4-bit codes: a byte holds the code of an even place, then of an odd one.

Lanes count codes from 8, the middle: sums of codes from 0 would lose bits when the zeros, which are
near 8, are taken off. With a code in the low bits of the float 2^23, one subtraction converts and
centres it. The upper code of a byte is used where it stands, so its lanes hold 16 times as much.
AVX-512 looks the sixteen values up in a register instead, which takes one instruction less.
"""

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from cpu_numba.kernels.compiled import emit, pairs
from cpu_numba.kernels.compiled.lanes import lanes

_TWO_23 = 0x4B000000  # the bits of 2^23, whose last place is worth 1
_LOOKS_UP = llvmlite.binding.get_host_cpu_features().get("avx512f", False)


def _taking(bits):
    """The intrinsics that read sixteen bytes, or `count` of them, and keep `bits` of each."""
    unit = bits & -bits  # what a code in this place counts
    middle = ir.Constant(emit.FLOATS, [float(2**23 + 8 * unit)] * emit.WIDTH)
    values = ir.Constant(emit.FLOATS, [float(unit * (code - 8)) for code in range(16)])

    def codes(context, builder, kind, args):
        value = builder.zext(emit.read(context, builder, kind, *args), emit.WORDS)
        if _LOOKS_UP:  # by the low four bits of each lane
            if unit > 1:
                value = builder.lshr(value, emit.words(4))
            return emit.call(builder, "llvm.x86.avx512.permvar.sf.512", emit.FLOATS,
                             [values, value])
        kept = builder.or_(builder.and_(value, emit.words(bits)), emit.words(_TWO_23))
        return builder.fsub(builder.bitcast(kept, emit.FLOATS), middle)

    @intrinsic
    def whole(typing_context, array, index):
        def code(context, builder, signature, args):
            return codes(context, builder, array, args)
        return lanes(array, types.intp), code

    @intrinsic
    def some(typing_context, array, index, count):
        def code(context, builder, signature, args):
            return codes(context, builder, array, args)
        return lanes(array, types.intp, types.intp), code
    return whole, some


low, low_some = _taking(0x0F)
high, high_some = _taking(0xF0)


@intrinsic
def words_times(typing_context, codes, index, x, first):
    """Lanes whose total is the product of 64 bytes of codes with 128 elements of x, which come in
    the order of `words.turn`: float32, or pairs of bf16.

    A lane takes the eight codes of a 32-bit word, one after another: nothing moves between lanes.
    """
    def code(context, builder, signature, args):
        array, at, factors, place = args
        source = emit.pointer(context, builder, codes, array, at, emit.WORDS)
        word = builder.load(source)
        word.align = 1
        if x.dtype == types.uint16:
            return _pairs_of(context, builder, word, x, factors, place)
        sums = [None, None]  # two, to hide the latency of an addition
        for j in range(8):
            value = _value(builder, builder.lshr(word, emit.words(4 * j)) if j else word)
            factor = emit.load(context, builder, x, factors,
                               builder.add(place, emit.I64(16 * j)))
            old = sums[j % 2]
            sums[j % 2] = emit.fma(builder, value, factor, old) if old else builder.fmul(value,
                                                                                         factor)
        return builder.fadd(*sums)
    return lanes(codes, types.intp, x, types.intp), code


def _pairs_of(context, builder, word, x, factors, place):
    """The same by pairs: one look-up for a code of each half of a word."""
    halves = ir.VectorType(ir.IntType(16), 2 * emit.WIDTH)
    shorts, sums = builder.bitcast(word, halves), ir.Constant(emit.FLOATS, None)
    for j in range(4):
        shifted = builder.lshr(shorts, ir.Constant(halves, [4 * j] * halves.count)) if j else shorts
        factor = emit.read(context, builder, x, factors, builder.add(place, emit.I64(32 * j)), None,
                           halves.count)
        sums = pairs.dot(builder, pairs.of_codes(builder, shifted),
                         builder.bitcast(factor, emit.WORDS), sums)
    return sums


def _value(builder, word):
    """What the low four bits of each lane stand for."""
    if _LOOKS_UP:
        values = ir.Constant(emit.FLOATS, [float(code - 8) for code in range(16)])
        return emit.call(builder, "llvm.x86.avx512.permvar.sf.512", emit.FLOATS, [values, word])
    kept = builder.or_(builder.and_(word, emit.words(15)), emit.words(_TWO_23))
    middle = ir.Constant(emit.FLOATS, [float(2**23 + 8)] * emit.WIDTH)
    return builder.fsub(builder.bitcast(kept, emit.FLOATS), middle)
