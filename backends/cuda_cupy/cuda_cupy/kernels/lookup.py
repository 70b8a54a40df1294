"""Binds look-ups in tables that are kept in codes: a block of threads expands a row."""

from cuda_cupy.kernels.blocked import whole
from cuda_cupy.kernels.declare import FLOATS, kernels
from cuda_cupy.launch import c_type, launch

_THREADS = 256


@kernels.implements("quantized_embedding", dtypes={"Q": "i8 i4x2", "O": FLOATS},
                    batch_invariant=True)
def quantized_embedding(ids, codes, scales, zeros, out, *, bits, group_size, columns):
    return launch("lookup.cu", "quantized_embedding", (out.shape[0],), _THREADS,
                  (ids, codes, scales, zeros, out, codes.shape[0], columns, group_size,
                   scales.shape[1]), defines={"O": c_type(out), "BITS": bits, "BLOCKED": 0})


@kernels.implements("block_embedding", dtypes={"O": FLOATS}, supports=whole, batch_invariant=True)
def block_embedding(ids, codes, high, steps, scales, min_steps, minimums, out, *, bits, group_size,
                    block_size, columns):
    return launch("lookup.cu", "block_embedding", (out.shape[0],), _THREADS,
                  (ids, codes, high, steps, scales, min_steps, minimums, out, codes.shape[0],
                   columns),
                  defines={"O": c_type(out), "BITS": bits, "GROUP": group_size,
                           "BLOCK": block_size, "BLOCKED": 1, "SCALES": int(scales is not None),
                           "ZEROS": int(min_steps is not None)})
