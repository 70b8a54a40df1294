"""Makes small graphs that several tests plan or print."""

from core.ir.graph import Graph
from core.tensor.dtype import f32
from core.tensor.tensor import TensorSpec


def spec(*shape, dtype=f32):
    return TensorSpec(shape, dtype)


def mlp() -> Graph:
    g = Graph("mlp")
    x, a = g.input("x", spec("T", 8)), g.input("a", spec("T", 8))
    total = g.add("add", x, a, name="residual")
    h = g.add("rms_norm", total, g.weight("norm", spec(8)), eps=1e-5, name="norm_1")
    gate = g.add("linear", h, g.weight("gate", spec(6, 8)), name="gate_proj")
    up = g.add("linear", h, g.weight("up", spec(6, 8)), name="up_proj")
    h = g.add("swiglu", gate, up, name="act")
    g.output("y", g.add("add", total, g.add("linear", h, g.weight("down", spec(8, 6)))))
    return g
