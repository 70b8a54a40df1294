"""Keeps a tile of sums in registers, some tokens by 64 or 16 rows of weights: the heart of a
product.

Both come transposed: a lane is a row of weights, and the tokens' units of one place lie side
by side, so that each is spread over a vector while it is read. Six tokens by 64 rows are 24 of
AVX-512's 32 registers of sums; three are 12, and 12 of totals over groups. Six tokens by 16 rows
are 12 of AVX2's 16 registers, and totals stay in memory.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from cpu_numba import machine
from cpu_numba.kernels.compiled import emit, integers, pairs
from cpu_numba.kernels.compiled.integers import int_lanes
from cpu_numba.kernels.compiled.jit import njit
from cpu_numba.kernels.compiled.naming import named
from cpu_numba.kernels.compiled.simd import lanes

_WIDE = machine.has("avx512f")
ROWS = 64 if _WIDE else 16
_VECTORS = ROWS // emit.WIDTH


def _advance(context, builder, tokens, arrays, args):
    """Return the sums after one more unit."""
    sums, x, x_at, w, w_at = args
    weights = [emit.read(context, builder, arrays[1], w,
                         builder.add(w_at, emit.I64(emit.WIDTH * v))) for v in range(_VECTORS)]
    element = emit.F32 if arrays[0].dtype == types.float32 else emit.I32
    multiply = {types.float32: emit.fma, types.uint32: pairs.dot,
                types.int32: integers.add_products}[arrays[0].dtype]
    for t in range(tokens):
        token = emit.splat(builder, builder.load(emit.pointer(
            context, builder, arrays[0], x, builder.add(x_at, emit.I64(t)), element)),
            ir.VectorType(element, emit.WIDTH))
        for place, weight in enumerate(weights, t * _VECTORS):
            new = multiply(builder, weight, token, builder.extract_value(sums, place))
            sums = builder.insert_value(sums, new, place)
    return sums


def _make(tokens):
    """multiply(...): totals += the product of `tokens` tokens and ROWS rows, by groups."""
    count = tokens * _VECTORS
    kind, ints = types.UniTuple(lanes, count), types.UniTuple(int_lanes, count)

    @intrinsic
    def blank(typing_context, x):
        result = ints if x.dtype == types.int32 else kind

        def code(context, builder, signature, args):
            return ir.Constant(context.get_value_type(result), None)
        return result(x), code

    @intrinsic
    def step(typing_context, sums, x, x_at, w, w_at):
        def code(context, builder, signature, args):
            return _advance(context, builder, tokens, (x, w), args)
        return sums(sums, x, types.intp, w, types.intp), code

    @intrinsic
    def add(typing_context, sums, scales, scale_at, x_scales, x_scale_at, skip, totals):
        """Return totals + sums times the rows' scales and, of integers, the tokens', `skip`
        apart."""
        def code(context, builder, signature, args):
            values, factors, place, own, here, apart, result = args
            rows = [emit.load(context, builder, scales, factors,
                              builder.add(place, emit.I64(emit.WIDTH * v)))
                    for v in range(_VECTORS)]
            for i in range(count):
                value, scale = builder.extract_value(values, i), rows[i % _VECTORS]
                if sums == ints:
                    value = builder.sitofp(value, emit.FLOATS)
                    one = emit.load_one(context, builder, x_scales, own, builder.add(
                        here, builder.mul(apart, emit.I64(i // _VECTORS))))
                    scale = builder.fmul(scale, emit.splat(builder, one))
                new = emit.fma(builder, value, scale, builder.extract_value(result, i))
                result = builder.insert_value(result, new, i)
            return result
        return kind(sums, scales, types.intp, x_scales, types.intp, types.intp, kind), code

    @intrinsic
    def take(typing_context, array, at):
        def code(context, builder, signature, args):
            result = ir.Constant(context.get_value_type(kind), None)
            for i in range(count):
                here = builder.add(args[1], emit.I64(emit.WIDTH * i))
                value = emit.load(context, builder, array, args[0], here)
                result = builder.insert_value(result, value, i)
            return result
        return kind(array, types.intp), code

    @intrinsic
    def leave(typing_context, array, at, values):
        def code(context, builder, signature, args):
            for i in range(count):
                here = builder.add(args[1], emit.I64(emit.WIDTH * i))
                emit.write(context, builder, array, args[0], here,
                           builder.extract_value(args[2], i))
            return context.get_dummy_value()
        return types.void(array, types.intp, kind), code

    @njit(_nrt=False)
    @named("multiply", tokens)
    def multiply(x, x_at, x_step, w, units, first, group, scales, x_scales, x_scale_at, skip,
                 totals, at):
        """A group is `group` units, the first one `first`. x_scales, for integers, begin at
        x_scale_at for the first token and group, `skip` apart for tokens."""
        result = take(totals, at)
        u, end, scale_at = 0, min(units, first), 0
        while u < units:
            sums = blank(x)
            for i in range(u, end):
                sums = step(sums, x, x_at + i * x_step, w, i * ROWS)
            result = add(sums, scales, scale_at, x_scales, x_scale_at, skip, result)
            u, end, scale_at = end, min(units, end + group), scale_at + ROWS
            x_scale_at += 1
        leave(totals, at, result)
    return multiply


#: Of twelve tokens, and of fewer: tokens that a tile takes where a row is one group, and the tile.
WHOLE = (6, _make(6)), (4, _make(4))
#: The same where totals need registers, too.
GROUPED = ((3, _make(3)), (2, _make(2))) if _WIDE else WHOLE
