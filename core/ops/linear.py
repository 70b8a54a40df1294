"""linear: defines a product with a weight matrix stored row by output."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from core.errors import DtypeError, ShapeError
from core.ir.examples import ErrorExample, Example, spec
from core.ir.op import Attr, Attrs, Cost, Env, Op, Specs, out_dtype
from core.ir.tolerance import Tolerance
from core.ops.published import LONGEST_T, products
from core.tensor.tensor import Array

ROWS = 1024  # that the definition takes at a time: in float64 a whole head takes gigabytes


class Product(Op):
    """Multiplies x [T,K] by a matrix into out [T,N]; says what that costs."""

    def cost(self, inputs: Specs, attrs: Attrs) -> Cost:
        moved = super().cost(inputs, attrs)
        x = inputs["x"]
        assert x is not None  # super().cost has checked
        out = self.infer(inputs, attrs)["out"]
        return Cost(2 * int(x.shape[1]) * (out.nbytes // out.dtype.itemsize), moved.nbytes)


class Linear(Product):
    """Computes out = x @ weight.T + bias; the sum runs in f32 or better, then rounds to
    `out_dtype`."""

    name = "linear"
    signature = "x A[T,K], weight W[N,K], bias W[N]? -> out O[T,N]"
    attributes: ClassVar = {"out_dtype": Attr(str, None, structural=True)}
    dtype_cases = (
        {"A": "f32", "W": "f32", "O": "f32"}, {"A": "f16", "W": "f16", "O": "f16"},
        {"A": "bf16", "W": "bf16", "O": "bf16"}, {"A": "f32", "W": "bf16", "O": "f32"},
        {"A": "f32", "W": "f16", "O": "f32"}, {"A": "bf16", "W": "bf16", "O": "f32"},
        {"A": "f16", "W": "f16", "O": "f32"})
    tolerance = Tolerance(8, 4, "K products may be summed in any order; one sequential f32 sum "
                          "errs about sqrt(K) / log2(K) times more than NumPy's blocked one, 8 at "
                          "K = 8192")

    def check(self, env: Env, attrs: Attrs) -> None:
        out_dtype(env, attrs)

    def inputs_in(self, compute: type[np.floating[Any]], inputs: Mapping[str, Any],
                  ) -> dict[str, Any]:
        """The weight stays as it is stored: `reference` converts some rows of it at a time."""
        return {**super().inputs_in(compute, {**inputs, "weight": None}),
                "weight": inputs["weight"]}

    def reference(self, x: Array, weight: Array, bias: Array | None) -> Array:
        out = np.empty((len(x), len(weight)), x.dtype)
        for n in range(0, len(weight), ROWS):
            out[:, n:n + ROWS] = x @ weight[n:n + ROWS].astype(x.dtype, copy=False).T
        return out if bias is None else out + bias

    def examples(self) -> list[Example]:
        def product(t: int, n: int, k: int, bias: bool = False, *, large: bool = False) -> Example:
            return Example(f"T{t}_N{n}_K{k}" + ("_bias" if bias else ""), lambda r: {
                "x": r.normal(t, k), "weight": r.normal(n, k, scale=k**-0.5),
                "bias": r.normal(n) if bias else None}, {}, large)
        return [product(0, 4, 8), product(1, 5632, 2048), product(1, 2048, 5632), product(1, 7, 33),
                product(1, 128, 896, True), product(2, 96, 130), product(17, 352, 128, True),
                product(130, 264, 72, True),
                product(512, 256, 512), product(LONGEST_T, 64, 96), product(3, 17001, 64),
                product(2, 97, 4864, True), product(9, 352, 896), product(16, 100, 2048),
                *(product(1, p.rows, p.columns, p.bias, large=p.large) for p in products()
                  if (p.rows, p.columns) not in ((5632, 2048), (2048, 5632), (128, 896)))]

    def error_examples(self) -> list[ErrorExample]:
        x, weight = spec("f32[2,4]"), spec("f32[3,4]")
        return [ErrorExample({"x": x, "weight": spec("f32[3,5]")}, {}, ShapeError, "K = 4"),
                ErrorExample({"x": x, "weight": weight, "bias": spec("f32[4]")}, {}, ShapeError,
                            "bias"),
                ErrorExample({"x": spec("i32[2,4]"), "weight": weight}, {"out_dtype": "i32"},
                            DtypeError, "out_dtype")]
