"""Lanes from packed 4-bit codes: a byte holds the code of an even place, then of an odd one.

Lanes count codes from 8, the middle: sums of codes from 0 would lose bits when the zeros, which are
near 8, are taken off. With a code in the low bits of the float 2^23, one subtraction converts and
centres it. The upper code of a byte is used where it stands, so its lanes hold 16 times as much.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from cpu_numba.kernels.compiled import emit
from cpu_numba.kernels.compiled.simd import lanes

_TWO_23 = 0x4B000000  # the bits of 2^23, whose last place is worth 1


def _taking(bits):
    """Make the intrinsics that read sixteen bytes, or `count` of them, and keep `bits` of each."""
    unit = bits & -bits  # what a code in this place counts
    middle = ir.Constant(emit.FLOATS, [float(2**23 + 8 * unit)] * emit.WIDTH)

    def codes(context, builder, kind, args):
        value = builder.zext(emit.read(context, builder, kind, *args), emit.WORDS)
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
