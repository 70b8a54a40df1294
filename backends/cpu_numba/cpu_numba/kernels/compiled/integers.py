"""Defines sixteen 32-bit integer lanes as a type of Numba's, and products of 16-bit pairs added to
them.

One instruction (pmaddwd on x86) multiplies two 16-bit integers a lane and adds both products, where
a float32 one multiplies one. Codes of 4 and 8 bits need no conversion to floats then, and sums of
integers are exact.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

from cpu_numba import machine
from cpu_numba.kernels.compiled import emit
from cpu_numba.kernels.compiled.simd import lanes

#: Whether the machine has the instruction for whole vectors.
FAST = machine.has("avx2")
_WIDE = machine.has("avx512bw")
_LANES = 16 if _WIDE else 8  # of a register
_PAIRS = 2 * emit.WIDTH
_SHORTS = ir.VectorType(ir.IntType(16), _PAIRS)


class IntLanes(types.Type):
    """Describes a vector to Numba."""

    def __init__(self):
        super().__init__("IntLanes")


int_lanes = IntLanes()


@register_model(IntLanes)
class _Model(models.PrimitiveModel):
    def __init__(self, manager, frontend_type):
        super().__init__(manager, frontend_type, emit.WORDS)


def add_products(builder, a, b, sums):
    """sums + a[2 * lane] * b[2 * lane] + a[2 * lane + 1] * b[2 * lane + 1], of 16-bit integers;
    a and b as words."""
    a, b = (builder.bitcast(v, _SHORTS) for v in (a, b))
    products = [_products(builder, *(_part(builder, v, part, 2 * _LANES) for v in (a, b)))
                for part in range(emit.WIDTH // _LANES)]
    return builder.add(sums, _joined(builder, products))


def _products(builder, a, b):
    """Return the sums of two products in the lanes of one register."""
    if FAST:
        result = ir.VectorType(emit.I32, _LANES)
        name = "avx512.pmaddw.d.512" if _WIDE else "avx2.pmadd.wd"
        return emit.call(builder, f"llvm.x86.{name}", result, [a, b])
    whole = ir.VectorType(emit.I32, 2 * _LANES)
    each = builder.mul(builder.sext(a, whole), builder.sext(b, whole))
    even, odd = (builder.shuffle_vector(each, each, ir.Constant(
        ir.VectorType(emit.I32, _LANES), list(range(side, 2 * _LANES, 2)))) for side in (0, 1))
    return builder.add(even, odd)


def _part(builder, value, number, count):
    """Return `count` elements, from number * count on."""
    return builder.shuffle_vector(value, value, ir.Constant(
        ir.VectorType(emit.I32, count), list(range(count * number, count * (number + 1)))))


def _joined(builder, parts):
    """Return all lanes, of one or two registers."""
    return builder.shuffle_vector(parts[0], parts[-1], ir.Constant(
        emit.WORDS, list(range(emit.WIDTH))))


@intrinsic
def nothing(typing_context):
    """Return a zero in every lane."""
    def code(context, builder, signature, args):
        return ir.Constant(emit.WORDS, None)
    return int_lanes(), code


@intrinsic
def load_words(typing_context, array, index):
    """Load array[index : index + 16] of 32-bit integers."""
    def code(context, builder, signature, args):
        return emit.read(context, builder, array, *args)
    return int_lanes(array, types.intp), code


@intrinsic
def bytes_times(typing_context, codes, index, x, first, sums):
    """sums + codes[index : index + 32] * x[first : first + 32], of int8 and int16."""
    def code(context, builder, signature, args):
        array, at, factors, place, sums = args
        value = builder.sext(emit.read(context, builder, codes, array, at, None, _PAIRS), _SHORTS)
        factor = emit.read(context, builder, x, factors, place, None, _PAIRS)
        return add_products(builder, value, factor, sums)
    return int_lanes(codes, types.intp, x, types.intp, int_lanes), code


@intrinsic
def nibbles_times(typing_context, codes, index, x, first, sums):
    """sums + the product of 64 bytes of codes from 0 to 15 with 128 int16 elements of x, which come
    in the order of `int4.transpose`. Each half of a lane takes its four codes one after another:
    nothing moves between lanes."""
    def code(context, builder, signature, args):
        return nibble_products(context, builder, (codes, x), args)
    return int_lanes(codes, types.intp, x, types.intp, int_lanes), code


def nibble_products(context, builder, kinds, args, upper=None):
    """Emit `nibbles_times`; upper(part, lanes) gives a function that returns the bits above those
    of a step, in their places, for so many of all lanes."""
    array, at, factors, place, sums = args
    parts = []
    for part in range(emit.WIDTH // _LANES):
        mine = _part(builder, sums, part, _LANES)
        words = _load(context, builder, kinds[0], array,
                      builder.add(at, emit.I64(4 * _LANES * part)), 4 * _LANES)
        more = upper and upper(part, _LANES)
        for step in range(4):
            factor = _load(context, builder, kinds[1], factors, builder.add(place, emit.I64(
                2 * (emit.WIDTH * step + _LANES * part))), 2 * _LANES)
            code = _code(builder, words, step)
            code = builder.or_(code, more(step)) if more else code
            mine = builder.add(mine, _products(builder, code, factor))
        parts.append(mine)
    return _joined(builder, parts)


def _load(context, builder, kind, array, index, count):
    """Load `count` elements as 16-bit integers, where they may lie anywhere."""
    shorts = count * kind.dtype.bitwidth // 16
    value = builder.load(emit.pointer(context, builder, kind, array, index,
                                      ir.VectorType(ir.IntType(16), shorts)))
    value.align = 1
    return value


def _code(builder, words, step):
    """Return the four bits of each half of a lane that come in this step."""
    def constant(value):
        return ir.Constant(words.type, [value] * words.type.count)
    shifted = builder.lshr(words, constant(4 * step)) if step else words
    return shifted if step == 3 else builder.and_(shifted, constant(15))


@intrinsic
def floats(typing_context, value):
    """Return the lanes as float32, rounded to nearest."""
    def code(context, builder, signature, args):
        return builder.sitofp(args[0], emit.FLOATS)
    return lanes(int_lanes), code


@intrinsic
def nearest(typing_context, value):
    """Return the nearest integer of each float32 lane, as float32."""
    def code(context, builder, signature, args):
        return emit.call(builder, "llvm.rint.v16f32", emit.FLOATS, list(args))
    return lanes(lanes), code


@intrinsic
def put_shorts(typing_context, array, index, value):
    """Set array[index : index + 16] = the lanes, whole numbers of 16 bits; NaN becomes 0."""
    def code(context, builder, signature, args):
        out, at, value = args
        number = builder.fcmp_ordered("ord", value, value)
        whole = builder.fptosi(builder.select(number, value, ir.Constant(emit.FLOATS, None)),
                               emit.WORDS)
        short = builder.trunc(whole, ir.VectorType(ir.IntType(16), emit.WIDTH))
        builder.store(short, emit.pointer(context, builder, array, out, at, short.type)).align = 2
        return context.get_dummy_value()
    return types.void(array, types.intp, lanes), code
