"""Emits instructions of AMX: tiles of 16 rows of 64 bytes, in registers of their own.

Tiles 0 to 3 hold sums, float32 [16,16]: of 32 rows of weights by 32 tokens. Tiles 4 and 5 hold
weights, bf16 [16 rows, 32 columns]; tiles 6 and 7 tokens, bf16 [16 pairs of columns, 16 tokens of
a pair each]. TDPBF16PS adds to each sum the products of 32 columns: those of even ones and of odd
ones are summed apart in float32, by fused multiply-adds, then both are added to the sum. It rounds
to nearest even, takes denormal numbers as 0 and leaves none (Intel's Architecture Instruction Set
Extensions Reference, "TDPBF16PS").
"""

import struct

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from cpu_numba.kernels.compiled import emit

SIDE = 16  # rows of a tile, and its float32 numbers, or pairs of bf16, a row
TILE = SIDE * SIDE  # words of a tile
_SUMS, _WEIGHTS, _TOKENS = (0, 1, 2, 3), (4, 5), (6, 7)
#: Palette 1; from byte 16 on the bytes of a row, from byte 48 on the rows, of each of 8 tiles.
_SHAPES = struct.pack("<16B16H16B", 1, *[0] * 15, *[4 * SIDE] * 8, *[0] * 8, *[SIDE] * 8, *[0] * 8)


def _instruction(builder, name, *args):
    values = [a if isinstance(a, ir.Value) else ir.IntType(8)(a) for a in args]
    emit.call(builder, f"llvm.x86.{name}", ir.VoidType(), values)


def _at(context, builder, kind, array, index):
    """Return the address of array[index], of 32-bit elements, and the bytes of a tile's row."""
    return (emit.pointer(context, builder, kind, array, index, ir.IntType(8)),
            emit.I64(4 * SIDE))


@intrinsic
def begin_tiles(typing_context):
    """Give the eight tiles of this thread their shapes."""
    def code(context, builder, signature, args):
        shapes = cgutils.global_constant(builder.module, "tile_shapes", ir.Constant(
            ir.ArrayType(ir.IntType(8), len(_SHAPES)), bytearray(_SHAPES)))
        _instruction(builder, "ldtilecfg", builder.bitcast(shapes, ir.IntType(8).as_pointer()))
        return context.get_dummy_value()
    return types.void(), code


@intrinsic
def end_tiles(typing_context):
    """Leave this thread's tiles without a state, which the system need not save then."""
    def code(context, builder, signature, args):
        _instruction(builder, "tilerelease")
        return context.get_dummy_value()
    return types.void(), code


@intrinsic
def no_sums(typing_context):
    """Set all sums to 0."""
    def code(context, builder, signature, args):
        for tile in _SUMS:
            _instruction(builder, "tilezero", tile)
        return context.get_dummy_value()
    return types.void(), code


@intrinsic
def leave_sums(typing_context, array, at):
    """Set array[at : at + 1024], float32, to the sums: for the first 16 rows of weights, then for
    the second, [16 rows, 16 tokens] of the first tokens, then of the second."""
    def code(context, builder, signature, args):
        for tile in _SUMS:
            here = builder.add(args[1], emit.I64(TILE * tile))
            _instruction(builder, "tilestored64", tile,
                         *_at(context, builder, array, args[0], here))
        return context.get_dummy_value()
    return types.void(array, types.intp), code


def _adding(several):
    """Return the intrinsic for `several` tiles of tokens, 1 or 2."""
    @intrinsic
    def add(typing_context, weights, at, tokens, here, skip):
        """Add the products of two tiles of weights, from weights[at] on, and of tiles of tokens
        from tokens[here] on, `skip` apart."""
        def code(context, builder, signature, args):
            array, place, others, first, apart = args
            for tile in _WEIGHTS:
                _instruction(builder, "tileloadd64", tile,
                             *_at(context, builder, weights, array, place))
                place = builder.add(place, emit.I64(TILE))
            for tile in _TOKENS[:several]:
                _instruction(builder, "tileloadd64", tile,
                             *_at(context, builder, tokens, others, first))
                first = builder.add(first, apart)
            for i, a in enumerate(_WEIGHTS):
                for j, b in enumerate(_TOKENS[:several]):
                    _instruction(builder, "tdpbf16ps", _SUMS[2 * i + j], a, b)
            return context.get_dummy_value()
        return types.void(weights, types.intp, tokens, types.intp, types.intp), code
    return add


add_one, add_two = _adding(1), _adding(2)
