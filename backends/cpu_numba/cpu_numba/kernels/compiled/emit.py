"""Emits LLVM instructions on sixteen elements, for the intrinsics of `simd`, `nibbles` and `tile`.

Elements are read in the type that the array's integers stand for (see `cpu_numba.backend.WORDS`):
int16 is f16, uint16 is bf16, int8 is an integer. LLVM splits sixteen lanes into whatever registers
the machine has: one of AVX-512, two of AVX2, four of NEON.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils

from cpu_numba import machine

WIDTH = 16
_MASKS_ALL = machine.has("avx512bw")
F32, I32, I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
FLOATS, WORDS = ir.VectorType(F32, WIDTH), ir.VectorType(I32, WIDTH)
_HALVES, _SHORTS = ir.VectorType(ir.HalfType(), WIDTH), ir.VectorType(ir.IntType(16), WIDTH)


def words(value):
    """Return a constant vector of one integer."""
    return ir.Constant(WORDS, [value] * WIDTH)


def call(builder, name, result, args, **flags):
    """Emit a call of an LLVM intrinsic by its full name."""
    kind = ir.FunctionType(result, [a.type for a in args])
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(function, args, **flags)


def pointer(context, builder, kind, array, index, target):
    """Return the address of element `index` of a contiguous one-dimensional array, as
    `target`'s."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), target.as_pointer())


def vector(kind, width=WIDTH):
    """Return the LLVM type of `count` elements of the array type `kind`."""
    return ir.VectorType(F32 if kind.dtype == types.float32 else ir.IntType(kind.dtype.bitwidth),
                         width)


def splat(builder, value, result=FLOATS):
    first = builder.insert_element(ir.Constant(result, ir.Undefined), value, I32(0))
    return builder.shuffle_vector(first, first, words(0))


def mask(builder, count, width=WIDTH):
    """Return a mask of the first `count` of all lanes."""
    kind = ir.VectorType(I32, width)
    limit = builder.insert_element(ir.Constant(kind, ir.Undefined), builder.trunc(count, I32),
                                   I32(0))
    limit = builder.shuffle_vector(limit, limit, ir.Constant(kind, [0] * width))
    return builder.icmp_unsigned("<", ir.Constant(kind, list(range(width))), limit)


def read(context, builder, kind, array, index, count=None, width=WIDTH):
    """Read elements as they are stored; beyond `count` zeros, which memory is not read for."""
    result = vector(kind, width)
    source = pointer(context, builder, kind, array, index, result)
    if count is None:
        value = builder.load(source)
        value.align = kind.dtype.bitwidth // 8
        return value
    if kind.dtype.bitwidth < 32 and not _MASKS_ALL:
        return _copied(builder, source, result, count)
    return call(builder, f"llvm.masked.load.v{width}{_suffix(kind)}.p0", result, [
        source, I32(kind.dtype.bitwidth // 8), mask(builder, count, width),
        ir.Constant(result, None)])


def _copied(builder, source, result, count):
    """Copy the first `count` elements through memory: AVX2 masks no elements under 32 bits, and
    LLVM would make a branch of each, which took most of the time that a product took to compile."""
    most = I64(result.count)
    count = builder.select(builder.icmp_signed("<", count, most), count, most)
    room = cgutils.alloca_once(builder, result)
    builder.store(ir.Constant(result, None), room)
    cgutils.raw_memcpy(builder, room, source, count, result.element.width // 8)
    return builder.load(room)


def write(context, builder, kind, array, index, value, count=None):
    """Store sixteen float32 lanes, or the first `count`, rounded to the array's type."""
    target = pointer(context, builder, kind, array, index, vector(kind))
    value = narrowed(builder, value, kind.dtype)
    if count is None:
        builder.store(value, target).align = kind.dtype.bitwidth // 8
    else:
        call(builder, f"llvm.masked.store.v16{_suffix(kind)}.p0", ir.VoidType(), [
            value, target, I32(kind.dtype.bitwidth // 8), mask(builder, count)])


def write_words(context, builder, kind, array, index, value, count=None):
    """Store sixteen words as they are, or the first `count`."""
    target = pointer(context, builder, kind, array, index, WORDS)
    if count is None:
        builder.store(value, target).align = 4
    else:
        call(builder, "llvm.masked.store.v16i32.p0", ir.VoidType(), [
            value, target, I32(4), mask(builder, count)])


def load(context, builder, kind, array, index, count=None):
    """Read elements as float32, as `read` does."""
    return _widened(builder, read(context, builder, kind, array, index, count), kind.dtype)


def load_one(context, builder, kind, array, index):
    """Load an element as float32."""
    few = vector(kind)
    value = builder.load(pointer(context, builder, kind, array, index, few.element))
    value = builder.insert_element(ir.Constant(few, None), value, I32(0))
    return builder.extract_element(_widened(builder, value, kind.dtype), I32(0))


def write_one(context, builder, kind, array, index, number):
    """Store a float32 number, rounded to the array's type."""
    value = builder.insert_element(ir.Constant(FLOATS, None), number, I32(0))
    value = builder.extract_element(narrowed(builder, value, kind.dtype), I32(0))
    builder.store(value, pointer(context, builder, kind, array, index, value.type))


def _widened(builder, value, element):
    """Return lanes of `element`s as float32."""
    if element == types.float32:
        return value
    if element == types.uint16:  # bf16 is the upper half of a float32
        return builder.bitcast(builder.shl(builder.zext(value, WORDS), words(16)), FLOATS)
    if element == types.int16:
        return builder.fpext(builder.bitcast(value, _HALVES), FLOATS)
    return builder.sitofp(builder.sext(value, WORDS), FLOATS)


def narrowed(builder, value, element):
    """Return float32 lanes as `element`s, rounded to nearest even."""
    if element == types.float32:
        return value
    if element == types.int16:
        return builder.bitcast(builder.fptrunc(value, _HALVES), _SHORTS)
    bits = builder.bitcast(value, WORDS)
    odd = builder.and_(builder.lshr(bits, words(16)), words(1))
    rounded = builder.add(bits, builder.add(odd, words(0x7FFF)))
    nan = builder.fcmp_unordered("uno", value, value)  # rounding could carry a NaN into infinity
    kept = builder.select(nan, builder.or_(bits, words(0x400000)), rounded)
    return builder.trunc(builder.lshr(kept, words(16)), _SHORTS)


def _suffix(kind):
    return "f32" if kind.dtype == types.float32 else f"i{kind.dtype.bitwidth}"


def fma(builder, a, b, c):
    return call(builder, "llvm.fma.v16f32", FLOATS, [a, b, c])


def total(builder, value):
    """Return the sum of the lanes: each of the upper half is added to one of the lower, until one
    is left."""
    half = WIDTH // 2
    while half:
        value = builder.fadd(*(builder.shuffle_vector(value, value, ir.Constant(
            ir.VectorType(I32, half), list(range(first, first + half)))) for first in (0, half)))
        half //= 2
    return builder.extract_element(value, I32(0))
