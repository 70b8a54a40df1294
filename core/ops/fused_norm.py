"""Define fused ops that begin with a norm or end with an activation."""

from typing import Any, ClassVar

from core.errors import OpError, ShapeError
from core.ir.examples import ErrorExample, Example, spec, uniform
from core.ir.fusion import FusedOp
from core.ir.op import Attr
from core.ir.tolerance import Tolerance
from core.ops.published import HIDDEN, INNER, LONGEST_T, PUBLISHED


class AddRmsNorm(FusedOp):
    """sum = a + b; out = rms_norm(sum): the residual connection and the norm after it."""

    name = "add_rms_norm"
    signature = "a A[T,D], b A[T,D], weight W[D] -> sum A[T,D], out A[T,D]"
    attributes: ClassVar = {"eps": Attr(float)}
    dtype_cases = (*uniform("A", "W"), {"A": "f32", "W": "bf16"})
    tolerance = Tolerance(4, 4, "as rms_norm, after one rounding of the sum")

    def compose(self, g: Any, a: Any, b: Any, weight: Any, *, eps: Any) -> Any:  # noqa: ANN401
        total = g.add("add", a, b)
        return total, g.add("rms_norm", total, weight, eps=eps)

    def examples(self) -> list[Example]:
        def rows(t: int, d: int, eps: float = 1e-5) -> Example:
            return Example(f"T{t}_D{d}", lambda r: {
                "a": r.normal(t, d), "b": r.normal(t, d), "weight": 1 + r.normal(d)}, {"eps": eps})
        return [rows(0, 8), rows(1, 2048), rows(2, 33), rows(17, 128), rows(512, 896),
                rows(LONGEST_T, 64), *(rows(3, *each) for each in HIDDEN)]

    def error_examples(self) -> list[ErrorExample]:
        a = spec("f32[2,4]")
        return [ErrorExample({"a": a, "b": a, "weight": spec("f32[5]")}, {"eps": 1e-5}, ShapeError,
                            "weight"),
                ErrorExample({"a": a, "b": a, "weight": spec("f32[4]")}, {}, OpError, "eps")]


class GateUpSwiGLU(FusedOp):
    """Computes out = swiglu(x @ gate.T, x @ up.T): the first half of an MLP."""

    name = "gate_up_swiglu"
    signature = "x A[T,K], gate W[N,K], up W[N,K] -> out A[T,N]"
    dtype_cases = (*uniform("A", "W"), {"A": "f32", "W": "bf16"})
    tolerance = Tolerance(8, 4, "as linear, then as swiglu")

    def compose(self, g: Any, x: Any, gate: Any, up: Any) -> Any:  # noqa: ANN401
        return g.add("swiglu", g.add("linear", x, gate), g.add("linear", x, up))

    def examples(self) -> list[Example]:
        def product(t: int, n: int, k: int, *, large: bool = False) -> Example:
            return Example(f"T{t}_N{n}_K{k}", lambda r: {
                "x": r.normal(t, k), "gate": r.normal(n, k, scale=k**-0.5),
                "up": r.normal(n, k, scale=k**-0.5)}, {}, large)
        return [product(0, 4, 8), product(1, 5632, 2048), product(2, 33, 130),
                product(17, 352, 128), product(512, 64, 96), product(LONGEST_T, 33, 32),
                product(3, 8501, 64), product(8, 352, 2048), product(13, 97, 4864),
                *(product(1, inner, 16) for inner in INNER),
                *(product(1, 48, hidden) for hidden, _ in HIDDEN),
                *(product(1, p.inner, p.hidden, large=True) for p in PUBLISHED[1:])]

    def error_examples(self) -> list[ErrorExample]:
        x, gate = spec("f32[2,4]"), spec("f32[3,4]")
        return [ErrorExample({"x": x, "gate": gate, "up": spec("f32[2,4]")}, {}, ShapeError, "up")]
