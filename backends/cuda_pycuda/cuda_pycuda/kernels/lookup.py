"""Binds look-ups in tables that are kept in codes: a block of threads expands a row."""

from cuda_pycuda.kernels.blocked import whole
from cuda_pycuda.kernels.declare import FLOATS, kernels
from cuda_pycuda.launch import c_type, launch

_THREADS = 256


def _lookup(ids, parts, out, rows, group_size, groups, defines):
    return launch("lookup.cu", "lookup", (out.shape[0],), _THREADS,
                  (ids, *parts, out, rows, out.shape[1], group_size, groups),
                  defines={"O": c_type(out), **defines})


@kernels.implements("quantized_embedding", dtypes={"Q": "i8 i4x2", "O": FLOATS},
                    batch_invariant=True)
def quantized_embedding(ids, codes, scales, zeros, out, *, bits, group_size, columns):
    rows, groups = scales.shape
    whole_runs = columns % 8 == 0 and group_size % 8 == 0
    return _lookup(ids, (codes, scales, zeros), out, rows, group_size, groups,
                   {"BITS": bits, "ALIGNED": int(whole_runs)})


@kernels.implements("block_embedding", dtypes={"O": FLOATS}, supports=whole, batch_invariant=True)
def block_embedding(ids, codes, high, steps, scales, min_steps, minimums, out, *, bits, group_size,
                    block_size, columns):
    return _lookup(ids, (codes, high, steps, scales, min_steps, minimums), out, codes.shape[0], 0,
                   0, {"BITS": bits, "GROUP": group_size, "BLOCK": block_size, "BLOCKED": 1,
                       "ALIGNED": 1, "SCALES": int(scales is not None),
                       "ZEROS": int(min_steps is not None)})
