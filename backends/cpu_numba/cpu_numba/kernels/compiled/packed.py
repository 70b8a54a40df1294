"""Emits products of codes of 4 to 6 bits with 16-bit integers, and loads of their small scales.

Low nibbles lie in one array, the bits above them in another (the op block_linear). Codes are put
together in registers: 128 at a time, each half of a lane four of them, as in `int4`; or 32 at a
time, counted from the middle of their range, for what is left of a row.
"""

from llvmlite import ir
from numba import types
from numba.core.errors import RequireLiteralValue
from numba.extending import intrinsic

from cpu_numba.kernels.compiled import emit
from cpu_numba.kernels.compiled.integers import add_products, int_lanes, nibble_products
from cpu_numba.kernels.compiled.simd import lanes

COUNT = 32  # codes taken at a time
#: GGUF's blocks: bits, columns of a group, of a block
FORMS = (4, 32, 256), (5, 32, 256), (6, 16, 256), (4, 16, 256), (4, 32, 32), (5, 32, 32)
_BYTES = ir.VectorType(ir.IntType(8), COUNT)
_SHORTS = ir.VectorType(ir.IntType(16), COUNT)


def _constant(values):
    """Return 32 bytes: `values` over and over."""
    return ir.Constant(_BYTES, [*values] * (COUNT // len(values)))


def _read(context, builder, kind, array, index, count):
    value = builder.load(emit.pointer(context, builder, kind, array, index,
                                      ir.VectorType(ir.IntType(8), count)))
    value.align = 1
    return value


def _codes(context, builder, bits, kinds, arrays, places):
    """Return 32 codes less the middle, as bytes."""
    packed = _read(context, builder, kinds[0], arrays[0], places[0], COUNT // 2)
    wide = packed.type

    def all_of(value):
        return ir.Constant(wide, [value] * wide.count)
    low, high = builder.and_(packed, all_of(15)), builder.lshr(packed, all_of(4))
    value = builder.shuffle_vector(low, high, ir.Constant(
        ir.VectorType(emit.I32, COUNT), [i // 2 + i % 2 * wide.count for i in range(COUNT)]))
    if bits > 4:
        each = 8 // (bits - 4)  # codes whose upper bits a byte holds
        more = _read(context, builder, kinds[1], arrays[1], places[1], COUNT // each)
        more = builder.shuffle_vector(more, more, ir.Constant(
            ir.VectorType(emit.I32, COUNT), [i // each for i in range(COUNT)]))
        for bit in range(bits - 4):
            mine = _constant([1 << (bits - 4) * i + bit for i in range(each)])
            there = builder.icmp_unsigned("!=", builder.and_(more, mine), ir.Constant(_BYTES, None))
            value = builder.or_(value, builder.select(there, _constant([16 << bit]),
                                                      ir.Constant(_BYTES, None)))
    return builder.sub(value, _constant([1 << bits - 1]))


def _make(bits):
    @intrinsic
    def times(typing_context, codes, index, high, place, x, first, sums):
        """sums + the product of 32 codes, whose nibbles begin at `index` and the bits above them at
        `place`, with x[first : first + 32], int16."""
        def code(context, builder, signature, args):
            arrays, places = (args[0], args[2]), (args[1], args[3])
            value = builder.sext(_codes(context, builder, bits, (codes, high), arrays, places),
                                 _SHORTS)
            factor = emit.read(context, builder, x, args[4], args[5], None, COUNT)
            return add_products(builder, value, factor, args[6])
        return int_lanes(codes, types.intp, high, types.intp, x, types.intp, int_lanes), code

    @intrinsic
    def unpack(typing_context, codes, index, high, place, out, at):
        """Set out[at : at + 32], int8, to codes less the middle."""
        def code(context, builder, signature, args):
            arrays, places = (args[0], args[2]), (args[1], args[3])
            value = _codes(context, builder, bits, (codes, high), arrays, places)
            target = emit.pointer(context, builder, out, args[4], args[5], _BYTES)
            builder.store(value, target).align = 1
            return context.get_dummy_value()
        return types.void(codes, types.intp, high, types.intp, out, types.intp), code
    @intrinsic
    def many_times(typing_context, codes, index, high, place, x, first, sums):
        """sums + the product of 128 codes, from 0 on, with as many int16 elements of x in the order
        of `int4.transpose`."""
        def code(context, builder, signature, args):
            def upper(part, count):
                return _upper(context, builder, bits, high, args[2], args[3], part, count)
            return nibble_products(context, builder, (codes, x), (*args[:2], *args[4:]),
                                   upper if bits > 4 else None)
        return int_lanes(codes, types.intp, high, types.intp, x, types.intp, int_lanes), code
    return times, unpack, many_times


def _upper(context, builder, bits, kind, array, place, part, count):
    """Return a function that gives the upper bits of a step: a byte of `high` belongs to one half
    of a lane, or, where it holds eight codes, to both of one."""
    shorts = ir.VectorType(ir.IntType(16), 2 * count)

    def all_of(vector, value):
        return ir.Constant(vector, [value] * vector.count)
    held = count if bits == 5 else 2 * count  # bytes
    value = _read(context, builder, kind, array, builder.add(place, emit.I64(held * part)), held)
    if bits == 5:
        words = ir.VectorType(emit.I32, count)
        value = builder.zext(value, words)
        value = builder.or_(value, builder.shl(value, all_of(words, 12)))
        value = builder.bitcast(builder.and_(value, all_of(words, 0x000F000F)), shorts)
    else:
        value = builder.zext(value, shorts)
    value = builder.shl(value, all_of(shorts, 4))

    def of_step(step):
        shifted = builder.lshr(value, all_of(shorts, (bits - 4) * step)) if step else value
        return builder.and_(shifted, all_of(shorts, ((1 << bits - 4) - 1) << 4))
    return of_step


#: bits -> (times, unpack, many_times)
OF = {bits: _make(bits) for bits in (4, 5, 6)}


def _as_floats(context, builder, kind, args, count, order):
    wide = ir.VectorType(emit.F32, count)
    if kind.dtype == types.int16:
        value = builder.load(emit.pointer(context, builder, kind, *args[:2],
                                          ir.VectorType(ir.HalfType(), count)))
        value.align = 2
        value = builder.fpext(value, wide)
    else:
        value = _read(context, builder, kind, *args[:2], count)
        value = builder.sitofp(builder.sext(value, ir.VectorType(emit.I32, count)), wide)
    return builder.shuffle_vector(value, ir.Constant(value.type, None),
                                  ir.Constant(emit.WORDS, order))


@intrinsic
def spread_small(typing_context, array, index, count):
    """Load lanes of array[index : index + count], int8 or f16, each 16 / count times in a row;
    `count` is a literal."""
    if not isinstance(count, types.IntegerLiteral):
        raise RequireLiteralValue("count")
    some = count.literal_value

    def code(context, builder, signature, args):
        return _as_floats(context, builder, array, args, some,
                                [i * some // emit.WIDTH for i in range(emit.WIDTH)])
    return lanes(array, types.intp, count), code


@intrinsic
def load_small(typing_context, array, index, count):
    """Load array[index : index + count], int8, in the first lanes; the others are 0. `count` is a
    literal."""
    if not isinstance(count, types.IntegerLiteral):
        raise RequireLiteralValue("count")
    some = count.literal_value

    def code(context, builder, signature, args):
        return _as_floats(context, builder, array, args, some,
                                [min(i, some) for i in range(emit.WIDTH)])
    return lanes(array, types.intp, count), code
