"""Multiplies four tokens by two rows of 8-bit codes at once, in integers: see `four`.

Rows of nibbles gain nothing by it: their codes are taken apart in less time than they are
multiplied.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from cpu_numba.kernels.compiled import emit
from cpu_numba.kernels.compiled.four import TOKENS, after, eight, of_both
from cpu_numba.kernels.compiled.integers import add_products, int_lanes, widened_bytes
from cpu_numba.kernels.compiled.rounding import FINER

eight_counts = types.UniTuple(int_lanes, 2 * TOKENS)


@intrinsic
def no_counts(typing_context):
    """Return eight vectors of zeros."""
    def code(context, builder, signature, args):
        return ir.Constant(context.get_value_type(eight_counts), None)
    return eight_counts(), code


@intrinsic
def bytes_times_four(typing_context, codes, i, others, j, x, first, places, counts):
    """counts + 32 codes of both rows times as many int16 of four tokens, `first` after
    `places`."""
    def code(context, builder, signature, args):
        rows = [widened_bytes(context, builder, kind, *args[n:n + 2])
                for kind, n in ((codes, 0), (others, 2))]
        tokens = [emit.read(context, builder, x, args[4], place, None, 2 * emit.WIDTH)
                  for place in after(builder, args[5], args[6])]
        return of_both(builder, args[7], rows, tokens,
                       lambda row, token, sums: add_products(builder, row, token, sums))
    return eight_counts(codes, types.intp, others, types.intp, x, types.intp, places,
                        eight_counts), code


def _as_floats(builder, whole, finer, place):
    """Return one vector of counts as float32; `finer` is None or counts in units of 1 / FINER."""
    value = builder.sitofp(builder.extract_value(whole, place), emit.FLOATS)
    if finer is None:
        return value
    rest = ir.Constant(emit.FLOATS, [float(1 / FINER)] * emit.WIDTH)
    return emit.fma(builder, builder.sitofp(builder.extract_value(finer, place), emit.FLOATS), rest,
                    value)


@intrinsic
def add_group(typing_context, sums, whole, finer, scales, i, others, j, x_scales, first, places):
    """sums + counts of a group times the rows' scales, of which one is at i and one at j, and the
    tokens' ones, `first` after `places`. `finer` is None or counts in units of 1 / FINER."""
    def code(context, builder, signature, args):
        result, more = args[0], None if finer == types.none else args[2]
        rows = [emit.load_one(context, builder, kind, *args[n:n + 2])
                for kind, n in ((scales, 3), (others, 5))]
        tokens = [emit.load_one(context, builder, x_scales, args[7], place)
                  for place in after(builder, args[8], args[9])]
        for place in range(2 * TOKENS):
            scale = builder.fmul(rows[place // TOKENS], tokens[place % TOKENS])
            new = emit.fma(builder, _as_floats(builder, args[1], more, place),
                           emit.splat(builder, scale), builder.extract_value(result, place))
            result = builder.insert_value(result, new, place)
        return result
    return eight(eight, whole, finer, scales, types.intp, others, types.intp, x_scales, types.intp,
                 places), code
