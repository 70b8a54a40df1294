"""Lanes from packed 4-bit codes: a byte holds the code of an even place, then of an odd one.

Lanes count codes from 8, the middle: sums of codes from 0 would lose bits when the zeros, which are
near 8, are taken off. With a code in the low bits of the float 2^23, one subtraction converts and
centres it. The upper code of a byte is used where it stands, so its lanes hold 16 times as much.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from cpu_numba.kernels.compiled import emit
from cpu_numba.kernels.compiled.lanes import lanes

_TWO_23 = 0x4B000000  # the bits of 2^23, whose last place is worth 1


def _taking(bits):
    """The intrinsics that read sixteen bytes, or `count` of them, and keep `bits` of each."""
    middle = ir.Constant(emit.FLOATS, [float(2**23 + 8 * (bits & -bits))] * emit.WIDTH)

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


@intrinsic
def store_pairs(typing_context, array, index, even, odd):
    """array[index : index + 32] = even and odd lanes in turn; the array is float32."""
    def code(context, builder, signature, args):
        turns = [lane + emit.WIDTH * side for lane in range(emit.WIDTH) for side in (0, 1)]
        order = ir.Constant(ir.VectorType(emit.I32, 2 * emit.WIDTH), turns)
        both = builder.shuffle_vector(args[2], args[3], order)
        target = emit.pointer(context, builder, array, *args[:2], both.type)
        builder.store(both, target).align = 4
        return context.get_dummy_value()
    return types.void(array, types.intp, lanes, lanes), code
