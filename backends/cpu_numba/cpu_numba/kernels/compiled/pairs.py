"""Puts two bf16 elements into a 32-bit lane, for the AVX512-BF16 dot product: half as many
instructions a multiplication as float32's.

vdpbf16ps adds both products of a lane to its float32 sum, each rounded to nearest (Intel's
Instruction Set Reference, "VDPBF16PS"). Products of bf16 elements are exact in float32, and codes
of 8 bits or fewer are exact in bf16.
"""

import numpy as np
from llvmlite import ir

from cpu_numba import machine
from cpu_numba.kernels.compiled import emit

#: Whether this machine has the instruction.
PAIRED = machine.has("avx512bf16")
#: Whether it multiplies more a cycle than float32's: Zen 4 starts one of each, with twice as many
#: multiplications; Sapphire Rapids two of float32's a cycle, and this one every second (measured:
#: 117 GFLOP/s a core, and 224 in float32).
FASTER = PAIRED and machine.name().startswith("znver")
#: The elements of scratch memory that holds pairs, and of scratch that holds float32.
PAIR, FLOAT = np.dtype(np.uint32), np.dtype(np.float32)


class _BFloat(ir.types._BaseFloatType):
    """Describes LLVM's bfloat, which llvmlite lacks."""

    null = "0.0"
    intrinsic_name = "bf16"

    def __str__(self):
        return "bfloat"


_BFloat._create_instance()
_SHORTS = ir.VectorType(ir.IntType(16), 2 * emit.WIDTH)
_CODES = [int(bits) >> 16 for bits in np.arange(-8, 8, dtype=np.float32).view(np.uint32)]
BFLOATS = ir.VectorType(_BFloat(), 2 * emit.WIDTH)


def dot(builder, a, b, sums):
    """sums + a[2 * lane] * b[2 * lane] + a[2 * lane + 1] * b[2 * lane + 1]; a and b as words."""
    pairs = [builder.bitcast(v, BFLOATS) for v in (a, b)]
    return emit.call(builder, "llvm.x86.avx512bf16.dpbf16ps.512", emit.FLOATS, [sums, *pairs])


def rounded(builder, value):
    """Round 32 float32 elements to pairs of bf16, in words."""
    return builder.bitcast(builder.fptrunc(value, BFLOATS), emit.WORDS)


def of_codes(builder, value):
    """Return, for the low four bits of each of 32 words of 16 bits, that code less 8 in bf16."""
    table = ir.Constant(_SHORTS, 2 * _CODES)  # it is looked up by five bits, of which four count
    found = emit.call(builder, "llvm.x86.avx512.permvar.hi.512", _SHORTS, [table, value])
    return builder.bitcast(found, emit.WORDS)
