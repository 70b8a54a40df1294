"""A tile of sums in registers: a few tokens by four rows of weights, the heart of a product.

Six by four is 24 vectors of sums, one of x and four of weights at a time: what the 32 registers of
AVX-512 hold, and 24 multiplications for ten loads.
"""

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from cpu_numba.kernels.compiled import emit
from cpu_numba.kernels.compiled.lanes import lanes

ROWS = 4


def _advance(context, builder, tokens, arrays, args, count=None):
    """The sums after sixteen more columns, or `count`."""
    sums, x, x_at, x_step, w, w_at, w_step = args
    rows = []
    for _ in range(ROWS):
        rows.append(emit.load(context, builder, arrays[1], w, w_at, count))
        w_at = builder.add(w_at, w_step)
    for t in range(tokens):
        token = emit.load(context, builder, arrays[0], x, x_at, count)
        x_at = builder.add(x_at, x_step)
        for place, row in enumerate(rows, t * ROWS):
            new = emit.fma(builder, token, row, builder.extract_value(sums, place))
            sums = builder.insert_value(sums, new, place)
    return sums


def _make(tokens):
    """multiply(...): the product of `tokens` rows of x and four of weights, added to `out`."""
    kind = types.UniTuple(lanes, tokens * ROWS)

    @intrinsic
    def blank(typing_context):
        def code(context, builder, signature, args):
            return ir.Constant(context.get_value_type(kind), None)
        return kind(), code

    @intrinsic
    def step(typing_context, sums, x, x_at, x_step, w, w_at, w_step):
        def code(context, builder, signature, args):
            return _advance(context, builder, tokens, (x, w), args)
        return kind(kind, x, types.intp, types.intp, w, types.intp, types.intp), code

    @intrinsic
    def step_some(typing_context, sums, x, x_at, x_step, w, w_at, w_step, count):
        def code(context, builder, signature, args):
            return _advance(context, builder, tokens, (x, w), args[:-1], args[-1])
        return kind(kind, x, types.intp, types.intp, w, types.intp, types.intp, types.intp), code

    @intrinsic
    def add(typing_context, sums, out, at, step_out):
        def code(context, builder, signature, args):
            values, array, place, skip = args
            for i in range(tokens * ROWS):
                target = emit.pointer(context, builder, out, array,
                                      builder.add(place, emit.I64(i % ROWS)), emit.F32)
                new = emit.total(builder, builder.extract_value(values, i))
                builder.store(builder.fadd(builder.load(target), new), target)
                if i % ROWS == ROWS - 1:
                    place = builder.add(place, skip)
            return context.get_dummy_value()
        return types.void(kind, out, types.intp, types.intp), code

    @njit
    def multiply(x, x_at, x_step, w, w_at, w_step, size, out, at, step_out):
        sums = blank()
        whole = size // 16 * 16
        for i in range(0, whole, 16):
            sums = step(sums, x, x_at + i, x_step, w, w_at + i, w_step)
        if whole < size:
            sums = step_some(sums, x, x_at + whole, x_step, w, w_at + whole, w_step, size - whole)
        add(sums, out, at, step_out)
    return multiply


by_six, by_two, by_one = _make(6), _make(2), _make(1)
