"""Defines sixteen float32 lanes as a type of Numba's, so that a kernel says how it is vectorised.

LLVM's loop vectoriser decides by heuristics: the same product over int8 codes ran ten times slower
when their array had two axes than with three. With an explicit vector type a loop is what it says.
"""

import operator

from llvmlite import ir
from numba import types
from numba.core.errors import RequireLiteralValue
from numba.extending import intrinsic, models, overload, register_model

from cpu_numba.kernels.compiled import emit, pairs
from cpu_numba.kernels.compiled.naming import named


class Lanes(types.Type):
    """Describes a vector to Numba."""

    def __init__(self):
        super().__init__("Lanes")


lanes = Lanes()


@register_model(Lanes)
class _Model(models.PrimitiveModel):
    def __init__(self, manager, frontend_type):
        super().__init__(manager, frontend_type, emit.FLOATS)


@intrinsic
def load(typing_context, array, index):
    """Load lanes of array[index : index + 16]."""
    def code(context, builder, signature, args):
        return emit.load(context, builder, array, *args)
    return lanes(array, types.intp), code


@intrinsic
def load_some(typing_context, array, index, count):
    """Load only `count` elements; the other lanes are 0."""
    def code(context, builder, signature, args):
        return emit.load(context, builder, array, *args)
    return lanes(array, types.intp, types.intp), code


@intrinsic
def store(typing_context, array, index, value):
    """Set array[index : index + 16] = value, rounded to the array's type."""
    def code(context, builder, signature, args):
        emit.write(context, builder, array, *args)
        return context.get_dummy_value()
    return types.void(array, types.intp, lanes), code


@intrinsic
def store_some(typing_context, array, index, value, count):
    """Store only `count` elements, else as `store`."""
    def code(context, builder, signature, args):
        emit.write(context, builder, array, *args)
        return context.get_dummy_value()
    return types.void(array, types.intp, lanes, types.intp), code


@intrinsic
def get(typing_context, array, index):
    """Return array[index] as a float32 number."""
    def code(context, builder, signature, args):
        return emit.load_one(context, builder, array, *args)
    return types.float32(array, types.intp), code


@intrinsic
def put(typing_context, array, index, value):
    """Set array[index] = value, a float32 number, rounded to the array's type."""
    def code(context, builder, signature, args):
        emit.write_one(context, builder, array, *args)
        return context.get_dummy_value()
    return types.void(array, types.intp, types.float32), code


def units(context, builder, kinds, array, index):
    """Read 32 elements of the first of two arrays that are multiplied: as pairs of bf16, if both
    hold bf16 and the machine multiplies pairs, else as two vectors of float32."""
    if pairs.PAIRED and kinds[0].dtype == kinds[1].dtype == types.uint16:
        return [builder.bitcast(emit.read(context, builder, kinds[0], array, index, None, 32),
                                emit.WORDS)]
    return [emit.load(context, builder, kinds[0], array, builder.add(index, emit.I64(part)))
            for part in (0, 16)]


def add_units(builder, some, others, sums):
    """Add the products of `units` to sums."""
    for one, other in zip(some, others, strict=True):
        sums = (pairs.dot if one.type == emit.WORDS else emit.fma)(builder, one, other, sums)
    return sums


@intrinsic
def times(typing_context, a, i, b, j, sums):
    """sums + a[i : i + 32] * b[j : j + 32]: two products to a lane."""
    def code(context, builder, signature, args):
        return add_units(builder, units(context, builder, (a, b), *args[:2]),
                         units(context, builder, (b, a), *args[2:4]), args[4])
    return lanes(a, types.intp, b, types.intp, lanes), code


@intrinsic
def prefetch(typing_context, array, index, count, distance):
    """Ask for the lines that lie `distance` bytes after array[index : index + count], literals.

    Two threads of Zen 3 read rows of bf16 1.2 times as fast for it, of 8-bit codes 1.2 and of 4-bit
    codes 1.25 times; rows of float32 no faster there, but 1.1 times on Sapphire Rapids.
    """
    if not (isinstance(count, types.IntegerLiteral) and isinstance(distance, types.IntegerLiteral)):
        raise RequireLiteralValue("count and distance")
    nbytes = count.literal_value * array.dtype.bitwidth // 8

    def code(context, builder, signature, args):
        start = emit.pointer(context, builder, array, *args[:2], ir.IntType(8))
        for line in range(0, nbytes, 64):
            emit.call(builder, "llvm.prefetch.p0", ir.VoidType(), [
                builder.gep(start, [emit.I64(line + distance.literal_value)]),
                *map(emit.I32, (0, 3, 1))])  # read, keep
        return context.get_dummy_value()
    return types.void(array, types.intp, count, distance), code


@intrinsic
def spread(typing_context, array, index, count):
    """Load lanes of array[index : index + count], each 16 / count times in a row; `count` is a
    literal 1, 2 or 4."""
    if not isinstance(count, types.IntegerLiteral):
        raise RequireLiteralValue("count")
    some = count.literal_value

    def code(context, builder, signature, args):
        few = ir.VectorType(emit.F32, some)
        value = builder.load(emit.pointer(context, builder, array, *args[:2], few))
        value.align = 4
        order = ir.Constant(emit.WORDS, [i * some // emit.WIDTH for i in range(emit.WIDTH)])
        return builder.shuffle_vector(value, value, order)
    return lanes(array, types.intp, count), code


@intrinsic
def splat(typing_context, number):
    """Return one float32 in every lane."""
    def code(context, builder, signature, args):
        return emit.splat(builder, *args)
    return lanes(types.float32), code


@intrinsic
def fma(typing_context, a, b, c):
    """Return a * b + c, rounded once."""
    def code(context, builder, signature, args):
        return emit.fma(builder, *args)
    return lanes(lanes, lanes, lanes), code


def _binary(function, instruction):
    @intrinsic
    def combine(typing_context, a, b):
        def code(context, builder, signature, args):
            return getattr(builder, instruction)(*args)
        return lanes(lanes, lanes), code

    @overload(function)
    def choose(a, b):
        if isinstance(a, Lanes) and isinstance(b, Lanes):
            return combined
        return None

    @named(instruction)
    def combined(a, b):
        return combine(a, b)


for _function, _instruction in ((operator.add, "fadd"), (operator.sub, "fsub"),
                                (operator.mul, "fmul"), (operator.truediv, "fdiv")):
    _binary(_function, _instruction)


@intrinsic
def larger(typing_context, a, b):
    """Return the larger of two lanes; a number rather than a NaN."""
    def code(context, builder, signature, args):
        return emit.call(builder, "llvm.maxnum.v16f32", emit.FLOATS, list(args))
    return lanes(lanes, lanes), code


@intrinsic
def total(typing_context, value):
    """Return the sum of the lanes."""
    def code(context, builder, signature, args):
        return emit.total(builder, *args)
    return types.float32(lanes), code


@intrinsic
def first(typing_context, value):
    """Return the first lane."""
    def code(context, builder, signature, args):
        return builder.extract_element(args[0], emit.I32(0))
    return types.float32(lanes), code


@intrinsic
def largest(typing_context, value):
    """Return the largest lane."""
    def code(context, builder, signature, args):
        return emit.call(builder, "llvm.vector.reduce.fmax.v16f32", emit.F32, list(args))
    return types.float32(lanes), code


@intrinsic
def pick(typing_context, a, b, then, otherwise):
    """Return `then` in the lanes where a < b, else `otherwise`."""
    def code(context, builder, signature, args):
        return builder.select(builder.fcmp_ordered("<", args[0], args[1]), args[2], args[3])
    return lanes(lanes, lanes, lanes, lanes), code


@intrinsic
def only(typing_context, value, count, rest):
    """Return the first `count` lanes of `value`, and `rest` in the others."""
    def code(context, builder, signature, args):
        return builder.select(emit.mask(builder, args[1]), args[0], args[2])
    return lanes(lanes, types.intp, lanes), code


@intrinsic
def shift_exponent(typing_context, value, power):
    """Return value * 2^n, n being the low bits of `power`'s mantissa."""
    def code(context, builder, signature, args):
        bits, n = (builder.bitcast(a, emit.WORDS) for a in args)
        return builder.bitcast(builder.add(bits, builder.shl(n, emit.words(23))), emit.FLOATS)
    return lanes(lanes, lanes), code
