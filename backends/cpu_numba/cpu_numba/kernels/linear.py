"""Multiplies a few tokens by float weight matrices: dot products that read the matrix once."""

from core import Call
from cpu_numba.compiling import bound
from cpu_numba.kernels.compiled import dot
from cpu_numba.kernels.declare import DOT, FLOATS, kernels
from cpu_numba.kernels.flat import flat, wide
from cpu_numba.kernels.threads import sharing

DTYPES = {"A": FLOATS, "W": FLOATS, "O": FLOATS}
FEW = 8  # tokens up to which dot products are faster than blocks


def few(call: Call) -> str | None:
    tokens = call.dims["T"]
    return None if tokens <= FEW else f"is for up to {FEW} tokens, got {tokens}"


def narrow(call: Call) -> str | None:
    """Refuses wide weights beside 16-bit activations, which no model has."""
    a, w = call.dtypes["A"], call.dtypes["W"]
    return None if a.itemsize >= w.itemsize else f"takes no {w} weights with {a} activations"


def few_narrow(call: Call) -> str | None:
    return few(call) or narrow(call)


def matrix_of(weight, bias, out):
    """Return a matrix for `dot.products`, which reads two rows at once."""
    return dot.Matrix(flat(weight), wide(bias), flat(out), len(weight), (len(weight) + 1) // 2)


def products(x, *matrices):
    """Bind `dot.products` of one to three (weight, bias, out), shared by threads."""
    made = [matrix_of(*m) for m in matrices]
    how = sharing(len(x), sum(m.weight.size for m in made), sum(m.pieces for m in made),
                  sum(m.weight.nbytes for m in made))
    made += [made[0]._replace(rows=0, pieces=0)] * (3 - len(made))
    return bound(dot.products, how, flat(x), *made, x.shape)


@kernels.implements("linear", dtypes=DTYPES, supports=few_narrow,
                    priority=1, family=DOT)
def linear_dot(x, weight, bias, out):
    return products(x, (weight, bias, out))


# of many tokens slower than blocks, with the bits of a few
kernels.implements("linear", dtypes=DTYPES, supports=narrow, name="linear_dot_many", priority=-1,
                   family=DOT)(linear_dot)


def gated(x, gate, up, out):
    """Return how threads share the rows of both, and the two of them."""
    how = sharing(len(x), 2 * gate.size, (len(gate) + 1) // 2, 2 * gate.nbytes)
    return how, matrix_of(gate, None, out), matrix_of(up, None, out)


@kernels.implements("gate_up_swiglu", dtypes={"A": "f32", "W": FLOATS}, supports=few_narrow,
                    family=DOT)
def gate_up_swiglu(x, gate, up, out):
    how, *both = gated(x, gate, up, out)
    return bound(dot.gated_product, how, flat(x), *both, x.shape)


# 16-bit gate and up are not rounded between, as its parts' are: no family
kernels.implements("gate_up_swiglu", dtypes={"A": "f16 bf16", "W": FLOATS}, supports=few_narrow,
                   name="gate_up_swiglu_16", batch_invariant=True)(gate_up_swiglu)
