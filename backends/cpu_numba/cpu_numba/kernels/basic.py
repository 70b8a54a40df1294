"""Row-wise kernels: implement embedding, norms, rope, softmax, add, swiglu."""

import numpy as np

from cpu_numba.compiling import bound
from cpu_numba.kernels.compiled import activations, rows
from cpu_numba.kernels.compiled import rope as rotations
from cpu_numba.kernels.compiled import softmax as exponentials
from cpu_numba.kernels.declare import DOT, FLOATS, kernels
from cpu_numba.kernels.flat import flat, wide


@kernels.implements("embedding", dtypes={"W": FLOATS, "O": FLOATS}, family=DOT)
def embedding(ids, table, out):
    return bound(rows.gather, ids, flat(table), flat(out), *out.shape)


@kernels.implements("rms_norm", dtypes={"A": FLOATS, "W": FLOATS}, family=DOT)
def rms_norm(x, weight, out, *, eps):
    return bound(rows.norm, flat(x), wide(weight), flat(out), *x.shape, np.float32(eps))


@kernels.implements("add_rms_norm", dtypes={"A": FLOATS, "W": FLOATS}, family=DOT)
def add_rms_norm(a, b, weight, sum, out, *, eps):
    return bound(rows.add_norm, flat(a), flat(b), wide(weight), flat(sum), flat(out), *a.shape,
                 np.float32(eps))


@kernels.implements("rope", dtypes={"A": FLOATS}, family=DOT)
def rope(x, positions, inv_freq, out, *, interleaved):
    tokens, heads, size = x.shape
    rotate = rotations.rotate_many if x.size >= rows.MANY else rotations.rotate
    return bound(rotate, flat(x), positions, inv_freq, flat(out), tokens, heads, size // 2,
                 interleaved)


@kernels.implements("softmax", dtypes={"A": "f32"}, family=DOT)
def softmax(x, out):
    return bound(exponentials.softmax, flat(x), flat(out), *x.shape)


@kernels.implements("add", dtypes={"A": FLOATS}, family=DOT)
def add(a, b, out):
    return bound(rows.add, flat(a), flat(b), flat(out), len(a), a.size // max(1, len(a)))


@kernels.implements("swiglu", dtypes={"A": FLOATS}, family=DOT)
def swiglu(gate, up, out):
    if gate.size >= rows.MANY:
        return bound(activations.swiglu_many, flat(gate), flat(up), flat(out), *gate.shape)
    return bound(activations.swiglu, flat(gate), flat(up), flat(out), gate.size)
