"""add, softmax and swiglu."""

import numpy as np

from core.errors import DtypeError, ShapeError
from core.ir.examples import ErrorExample, Example, ExampleInputs, spec, uniform
from core.ir.op import Op
from core.ir.tolerance import Tolerance
from core.ops.published import INNER, LONGEST_T
from core.tensor.tensor import Array


class Add(Op):
    """Computes out = a + b: the residual connection."""

    name = "add"
    signature = "a A[T,D], b A[T,D] -> out A[T,D]"
    dtype_cases = uniform("A")
    tolerance = Tolerance(1, 0.5, "one correctly rounded addition")

    def reference(self, a: Array, b: Array) -> Array:
        return a + b

    def examples(self) -> list[Example]:
        def rows(t: int, d: int) -> Example:
            return Example(f"T{t}_D{d}",
                          lambda r: {"a": r.normal(t, d), "b": r.normal(t, d)}, {})
        return [rows(0, 8), rows(1, 2048), rows(2, 7), rows(17, 896), rows(512, 128), rows(3, 4096),
                rows(LONGEST_T, 64),
                Example("inf_nan", lambda r: {"a": np.array([[np.inf, np.nan, 1.0]]),
                                             "b": np.array([[1.0, 1.0, -np.inf]])}, {})]

    def error_examples(self) -> list[ErrorExample]:
        a = spec("f32[2,4]")
        return [ErrorExample({"a": a, "b": spec("f32[4,2]")}, {}, ShapeError, "T = 2"),
                ErrorExample({"a": a, "b": spec("f16[2,4]")}, {}, DtypeError, "`b`")]


class Softmax(Op):
    """Computes out = exp(x - max(x)) / sum(exp(x - max(x))) along the last axis."""

    name = "softmax"
    signature = "x A[T,D] -> out A[T,D]"
    dtype_cases = uniform("A")
    tolerance = Tolerance(4, 4, "exp may err by a few ULP, and D terms may be summed in any order")

    def reference(self, x: Array) -> Array:
        e = np.exp(x - np.max(x, axis=-1, keepdims=True, initial=-np.inf))
        out: Array = e / np.sum(e, axis=-1, keepdims=True)
        return out

    def examples(self) -> list[Example]:
        def rows(t: int, d: int, scale: float) -> Example:
            return Example(f"T{t}_D{d}_scale{scale:g}",
                          lambda r: {"x": r.normal(t, d, scale=scale)}, {})
        def masked(r: ExampleInputs) -> dict[str, Array | None]:
            x = r.normal(3, 70, scale=100)
            x[:, 1::2] = -np.inf
            x[1, :68] = -np.inf  # all but one
            return {"x": x}
        return [rows(0, 8, 1), rows(1, 2048, 1), rows(2, 7, 30), rows(17, 321, 5),
                rows(512, 128, 1), rows(LONGEST_T, 64, 1), rows(1, 1, 1), rows(1, 128256, 2),
                Example("masked", masked, {})]

    def error_examples(self) -> list[ErrorExample]:
        return [ErrorExample({"x": spec("f32[4]")}, {}, ShapeError, "2 axes")]


class SwiGLU(Op):
    """Computes out = silu(gate) * up, silu(x) = x / (1 + exp(-x)) (Shazeer 2020, arXiv
    2002.05202)."""

    name = "swiglu"
    signature = "gate A[T,D], up A[T,D] -> out A[T,D]"
    dtype_cases = uniform("A")
    tolerance = Tolerance(4, 4, "exp may err by a few ULP; then a sum, a quotient and a product")

    def reference(self, gate: Array, up: Array) -> Array:
        with np.errstate(over="ignore"):  # exp(-gate) = inf gives the right answer, 0
            out: Array = gate / (1 + np.exp(-gate)) * up
        return out

    def examples(self) -> list[Example]:
        def rows(t: int, d: int, scale: float) -> Example:
            return Example(f"T{t}_D{d}_scale{scale:g}",
                          lambda r: {"gate": r.normal(t, d, scale=scale), "up": r.normal(t, d)}, {})
        return [rows(0, 8, 1), rows(1, 5632, 1), rows(2, 7, 60), rows(17, 352, 4),
                rows(512, 128, 1), rows(LONGEST_T, 64, 1),
                *(rows(2, inner, 1) for inner in INNER)]

    def error_examples(self) -> list[ErrorExample]:
        gate = spec("f32[2,4]")
        return [ErrorExample({"gate": gate, "up": spec("f32[2,5]")}, {}, ShapeError, "up")]
