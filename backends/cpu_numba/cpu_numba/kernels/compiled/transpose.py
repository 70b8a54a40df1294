"""Transposes blocks of sixteen rows, so that a vector holds one element, or pair, of every row.

What a product does with them needs no sum across lanes. Elements are widened on the way: to
float32, or to pairs of bf16 where the target holds pairs.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from cpu_numba.kernels.compiled import emit, pairs


@intrinsic
def transpose(typing_context, source, start, skip, rows, count, target, at, step, lanes):
    """Set target[at + step * u : ...][:lanes] = unit u of 16 rows, which begin `skip` apart.

    A unit is a float32 or, in a target of words, two bf16 or, if they are signed, two int16. Only
    `rows` rows and `count` elements of each are read; the others are 0, or in nibbles what a byte
    of 0 stands for. Rows of int16 have whole units, and lanes beyond the last repeat it. Sixteen
    rows fill sixteen lanes. `start` and `skip` count the source's own elements, of which one holds
    two codes of 4 bits.
    """
    def code(context, builder, signature, args):
        array, place, apart, most, columns, out, to, stride, width = args
        several = emit.WIDTH if target.dtype == types.float32 else 2 * emit.WIDTH
        whole = builder.and_(builder.icmp_signed(">=", most, emit.I64(emit.WIDTH)),
                             builder.icmp_signed(">=", columns, emit.I64(several)))

        def block(limits, some):
            rows, here, last = [], place, builder.sub(most, emit.I64(1))
            for number, limit in enumerate(limits):
                rows.append(_row(context, builder, source, array, here, target, limit))
                more = builder.icmp_signed("<", emit.I64(number), last)
                here = builder.add(here, apart if limit is not None else builder.select(
                    more, apart, emit.I64(0)))
            there = to
            for vector in _transposed(builder, rows):
                emit.write_words(context, builder, target, out, there, vector, some)
                there = builder.add(there, stride)

        if target.dtype == types.int32:
            block([None] * emit.WIDTH, width)
            return context.get_dummy_value()
        with builder.if_else(whole) as (then, otherwise):
            with then:
                block([None] * emit.WIDTH, None)
            with otherwise:
                block([builder.select(builder.icmp_signed("<", emit.I64(r), most), columns,
                                      emit.I64(0)) for r in range(emit.WIDTH)], width)
        return context.get_dummy_value()
    return types.void(source, types.intp, types.intp, types.intp, types.intp, target, types.intp,
                      types.intp, types.intp), code


def _row(context, builder, kind, array, index, target, count):
    """Return the elements of a row that fill sixteen words of the target: float32, or pairs."""
    if kind.dtype == types.uint8:
        return nibbles(context, builder, kind, array, index, target, count)
    if target.dtype == types.float32:
        return builder.bitcast(emit.load(context, builder, kind, array, index, count), emit.WORDS)
    several = 2 * emit.WIDTH
    value = emit.read(context, builder, kind, array, index, count, several)
    if kind.dtype != types.int8:  # bf16 for pairs of bf16, int16 for pairs of int16
        return builder.bitcast(value, emit.WORDS)
    if target.dtype == types.int32:
        return builder.bitcast(builder.sext(value, ir.VectorType(ir.IntType(16), several)),
                               emit.WORDS)
    return pairs.rounded(builder, builder.sitofp(value, ir.VectorType(emit.F32, several)))


def nibbles(context, builder, kind, array, index, target, count):
    """Codes from 8, the middle; a byte holds the one of an even place, then of an odd one."""
    several = emit.WIDTH if target.dtype == types.float32 else 2 * emit.WIDTH
    if count is not None:
        count = builder.lshr(builder.add(count, emit.I64(1)), emit.I64(1))
    value = emit.read(context, builder, kind, array, index, count, several // 2)
    if several > emit.WIDTH:
        word = builder.zext(value, emit.WORDS)
        both = builder.or_(word, builder.shl(word, emit.words(12)))
        halves = ir.VectorType(ir.IntType(16), several)
        if target.dtype == types.int32:
            low = builder.and_(builder.bitcast(both, halves), ir.Constant(halves, [15] * several))
            return builder.bitcast(builder.sub(low, ir.Constant(halves, [8] * several)), emit.WORDS)
        return pairs.of_codes(builder, builder.bitcast(both, halves))
    four = ir.Constant(value.type, [4] * (several // 2))
    low, high = builder.and_(value, ir.Constant(value.type, [15] * (several // 2))), builder.lshr(
        value, four)
    order = [lane + several // 2 * side for lane in range(several // 2) for side in (0, 1)]
    codes = builder.shuffle_vector(low, high, ir.Constant(emit.WORDS, order))
    centred = builder.sub(builder.zext(codes, emit.WORDS), emit.words(8))
    return builder.bitcast(builder.sitofp(centred, emit.FLOATS), emit.WORDS)


def _transposed(builder, rows):
    """Transpose sixteen vectors of sixteen words: words, then pairs of words, change places within
    quarters of a vector, then the quarters."""
    def taken(a, b, lanes):
        return builder.shuffle_vector(a, b, ir.Constant(emit.WORDS, lanes))

    quarters = range(0, emit.WIDTH, 4)
    words = [[q + lane + emit.WIDTH * side for q in quarters for lane in part for side in (0, 1)]
             for part in ((0, 1), (2, 3))]
    twos = [[q + lane + emit.WIDTH * side for q in quarters for side in (0, 1) for lane in part]
            for part in ((0, 1), (2, 3))]
    fours = [[emit.WIDTH * side + q + lane for side in (0, 1) for q in part for lane in range(4)]
             for part in ((0, 8), (4, 12))]
    rows = [taken(rows[i], rows[i + 1], order) for i in range(0, emit.WIDTH, 2) for order in words]
    rows = [taken(rows[q + half], rows[q + half + 2], order)
            for q in quarters for half in (0, 1) for order in twos]
    transposed = [None] * emit.WIDTH
    for c in range(4):
        for parity, order in enumerate(fours):
            low, high = taken(rows[c], rows[c + 4], order), taken(rows[c + 8], rows[c + 12], order)
            for half, order_of_half in enumerate(fours):
                transposed[4 * (parity + 2 * half) + c] = taken(low, high, order_of_half)
    return transposed


@intrinsic
def turn(typing_context, array, at):
    """Transpose 16 rows of 16 float32 numbers, which begin at array[at], in place."""
    def code(context, builder, signature, args):
        places = [builder.add(args[1], emit.I64(emit.WIDTH * row)) for row in range(emit.WIDTH)]
        rows = [builder.bitcast(emit.read(context, builder, array, args[0], place), emit.WORDS)
                for place in places]
        for place, value in zip(places, _transposed(builder, rows), strict=True):
            emit.write_words(context, builder, array, args[0], place, value)
        return context.get_dummy_value()
    return types.void(array, types.intp), code
