"""Multiplies four tokens by two rows of weights at once: each is read and widened once for all.

Eight vectors hold a sum for each token and row: those of the first row, then those of the second.
Every sum adds what it adds for one token alone, in the same order, so bits do not depend on the
number of tokens. Where fewer than four are left, the last one stands in for those that are missing.

Codes gain little by it, as taking them apart and scaling their groups is most of the work: 8-bit
ones 1.2 times, for twice the time to compile, 4-bit ones nothing.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from cpu_numba import machine
from cpu_numba.kernels.compiled import emit
from cpu_numba.kernels.compiled.jit import njit
from cpu_numba.kernels.compiled.simd import add_units, lanes, units

TOKENS = 4
FAST = machine.has("avx512f")  # it alone has the 16 registers of 16 lanes that such sums take
FEWEST = 2 if FAST else 1 << 30  # tokens from which on this is faster than one after another
eight = types.UniTuple(lanes, 2 * TOKENS)


@njit(_nrt=False)
def places_of(t, tokens, step, first):
    """Return first + step * t of four tokens, t the first of them."""
    last = tokens - 1
    return (first + step * t, first + step * min(t + 1, last), first + step * min(t + 2, last),
            first + step * min(t + 3, last))


def of_both(builder, sums, rows, tokens, add):
    """Return the sums after add(row, token, sum) for each."""
    for place in range(2 * TOKENS):
        new = add(rows[place // TOKENS], tokens[place % TOKENS],
                  builder.extract_value(sums, place))
        sums = builder.insert_value(sums, new, place)
    return sums


def after(builder, first, places):
    """Return where four tokens' elements lie: `first` after each of `places`."""
    return [builder.add(first, builder.extract_value(places, t)) for t in range(TOKENS)]


@intrinsic
def no_sums(typing_context):
    """Return eight vectors of zeros."""
    def code(context, builder, signature, args):
        return ir.Constant(context.get_value_type(eight), None)
    return eight(), code


@intrinsic
def times_four(typing_context, a, i, b, j, x, first, places, sums):
    """sums + 32 elements of both rows times as many of four tokens, `first` after `places`."""
    def code(context, builder, signature, args):
        rows = [units(context, builder, (kind, x), *args[n:n + 2])
                for kind, n in ((a, 0), (b, 2))]
        tokens = [units(context, builder, (x, a), args[4], place)
                  for place in after(builder, args[5], args[6])]
        return of_both(builder, args[7], rows, tokens,
                       lambda row, token, sums: add_units(builder, row, token, sums))
    return eight(a, types.intp, b, types.intp, x, types.intp, places, eight), code


@intrinsic
def some_times_four(typing_context, a, i, b, j, x, first, places, sums, count):
    """Compute what `times_four` does of only `count` elements, 16 at most."""
    def code(context, builder, signature, args):
        rows = [emit.load(context, builder, kind, args[n], args[n + 1], args[8])
                for kind, n in ((a, 0), (b, 2))]
        tokens = [emit.load(context, builder, x, args[4], place, args[8])
                  for place in after(builder, args[5], args[6])]
        return of_both(builder, args[7], rows, tokens,
                       lambda row, token, sums: emit.fma(builder, row, token, sums))
    return eight(a, types.intp, b, types.intp, x, types.intp, places, eight,
                 types.intp), code


@intrinsic
def one_times_eight(typing_context, a, i, b, first, places, sums, count):
    """sums + a[i : i + count] * as many elements of b, `first` after each of eight places; 16 at
    most."""
    def code(context, builder, signature, args):
        one = emit.load(context, builder, a, *args[:2], args[6])
        result = args[5]
        for place in range(2 * TOKENS):
            at = builder.add(args[3], builder.extract_value(args[4], place))
            new = emit.fma(builder, one, emit.load(context, builder, b, args[2], at, args[6]),
                           builder.extract_value(result, place))
            result = builder.insert_value(result, new, place)
        return result
    return eight(a, types.intp, b, types.intp, places, eight, types.intp), code


@intrinsic
def add_sums(typing_context, some, others):
    """Return the sums of two times eight vectors."""
    def code(context, builder, signature, args):
        result = args[0]
        for place in range(2 * TOKENS):
            both = [builder.extract_value(sums, place) for sums in args]
            result = builder.insert_value(result, builder.fadd(*both), place)
        return result
    return eight(eight, eight), code


@intrinsic
def totals(typing_context, sums):
    """Return the total of each of eight vectors in a lane of its own, with the bits of `total`;
    the other lanes repeat theirs."""
    def code(context, builder, signature, args):
        found = [builder.extract_value(args[0], place) for place in range(2 * TOKENS)]
        width = emit.WIDTH  # of what is left of a vector
        while width > 1:
            if len(found) == 1:
                found *= 2
            # two vectors become one: of each, its parts of `width` lanes are halved
            halves = [[part + first + lane for part in range(0, 2 * emit.WIDTH, width)
                       for lane in range(width // 2)] for first in (0, width // 2)]
            found = [builder.fadd(*(builder.shuffle_vector(one, other, ir.Constant(
                emit.WORDS, order)) for order in halves))
                for one, other in zip(found[::2], found[1::2], strict=True)]
            width //= 2
        return found[0]
    return lanes(eight), code


@intrinsic
def second_row(typing_context, value):
    """Return the totals of the second row in the lanes of the first row's."""
    def code(context, builder, signature, args):
        return builder.shuffle_vector(args[0], args[0], ir.Constant(
            emit.WORDS, [(lane + TOKENS) % emit.WIDTH for lane in range(emit.WIDTH)]))
    return lanes(lanes), code


@intrinsic
def pushed(typing_context, found, value):
    """Return the last twelve lanes of `found`, then the first four of `value`."""
    def code(context, builder, signature, args):
        return builder.shuffle_vector(*args, ir.Constant(
            emit.WORDS, list(range(TOKENS, TOKENS + emit.WIDTH))))
    return lanes(lanes, lanes), code


@intrinsic
def pulled(typing_context, found):
    """Return the last four lanes before the others."""
    def code(context, builder, signature, args):
        return builder.shuffle_vector(args[0], args[0], ir.Constant(
            emit.WORDS, [(lane - TOKENS) % emit.WIDTH for lane in range(emit.WIDTH)]))
    return lanes(lanes), code


@intrinsic
def put_four(typing_context, array, places, value):
    """Set array[places[t]] = lane t, rounded to the array's type."""
    def code(context, builder, signature, args):
        narrow = emit.narrowed(builder, args[2], array.dtype)
        for t in range(TOKENS):
            one = builder.extract_element(narrow, emit.I32(t))
            builder.store(one, emit.pointer(context, builder, array, args[0],
                                            builder.extract_value(args[1], t), one.type))
        return context.get_dummy_value()
    return types.void(array, places, lanes), code
