"""Defines rms_norm (Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467)."""

from typing import ClassVar

import numpy as np

from core.errors import OpError, ShapeError
from core.ir.examples import ErrorExample, Example, ExampleInputs, spec, uniform
from core.ir.op import Attr, Op
from core.ir.tolerance import Tolerance
from core.ops.published import HIDDEN, LONGEST_T
from core.tensor.tensor import Array


class RmsNorm(Op):
    """Computes out = x / sqrt(mean(x², last axis) + eps) * weight."""

    name = "rms_norm"
    signature = "x A[T,D], weight W[D] -> out A[T,D]"
    attributes: ClassVar = {"eps": Attr(float)}
    dtype_cases = (*uniform("A", "W"), {"A": "f32", "W": "bf16"}, {"A": "f32", "W": "f16"})
    tolerance = Tolerance(4, 4, "a mean of D squares may be summed in any order; then one rounding "
                          "each for the square root, the division and the product")

    def reference(self, x: Array, weight: Array, *, eps: float) -> Array:
        mean_square = np.mean(x * x, axis=-1, keepdims=True)
        out: Array = x / np.sqrt(mean_square + x.dtype.type(eps)) * weight
        return out

    def examples(self) -> list[Example]:
        def rows(t: int, d: int, eps: float = 1e-5, scale: float = 1.0) -> Example:
            return Example(f"T{t}_D{d}" + (f"_scale{scale:g}" if scale != 1 else ""),
                          lambda r: {"x": r.normal(t, d, scale=scale), "weight": 1 + r.normal(d)},
                          {"eps": eps})

        def special(name: str, value: float) -> Example:
            def make(r: ExampleInputs) -> dict[str, Array | None]:
                x = r.normal(3, 16)
                x[1, 5] = value
                return {"x": x, "weight": r.normal(16)}
            return Example(name, make, {"eps": 1e-5})
        # the small scale makes eps decide the result, so that leaving it out is seen
        return [rows(0, 8), rows(1, 128), rows(1, 2048), rows(2, 33, 1e-6), rows(17, 2048),
                rows(512, 896, 1e-6), rows(3, 64, 1e-5, 1e-3),
                rows(LONGEST_T, 64), *(rows(3, *each) for each in HIDDEN), special("nan", np.nan),
                Example("zeros", lambda r: {"x": np.zeros((2, 16)), "weight": r.normal(16)},
                       {"eps": 1e-5})]

    def error_examples(self) -> list[ErrorExample]:
        x = spec("f32[2,4]")
        return [ErrorExample({"x": x, "weight": spec("f32[5]")}, {"eps": 1e-5}, ShapeError,
                            "weight"),
                ErrorExample({"x": x, "weight": spec("f32[4]")}, {}, OpError, "eps"),
                ErrorExample({"x": x}, {"eps": 1e-5}, OpError, "weight")]
