"""Products with weight matrices of floats, for a few tokens: dot products that read it once."""

from core.backend import Call
from cpu_numba.compiling import bound
from cpu_numba.kernels.compiled import dot
from cpu_numba.kernels.declare import kernels
from cpu_numba.kernels.flat import flat, wide
from cpu_numba.kernels.threads import alone

FEW = 8  # tokens up to which dot products are faster than blocks


def few(call: Call) -> str | None:
    tokens = call.dims["T"]
    return None if tokens <= FEW else f"is for up to {FEW} tokens, got {tokens}"


@kernels.implements("linear", dtypes={"A": "f32", "W": "f32 f16 bf16", "O": "f32"}, supports=few,
                    priority=1, batch_invariant=True)
def linear_dot(x, weight, bias, out):
    return bound(dot.product, flat(x), flat(weight), wide(bias), flat(out), len(x), *weight.shape,
                 alone(len(x) * weight.size))


@kernels.implements("gate_up_swiglu", dtypes={"A": "f32", "W": "f32 f16 bf16"}, supports=few,
                    batch_invariant=True)
def gate_up_swiglu(x, gate, up, out):
    return bound(dot.gated_product, flat(x), flat(gate), flat(up), flat(out), len(x), *gate.shape,
                 alone(2 * len(x) * gate.size))
