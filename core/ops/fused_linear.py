"""Define fused products with float weights: query, key and value; the first half of an MLP."""

from typing import Any, ClassVar

from core.errors import OpError, ShapeError
from core.ir.examples import ErrorExample, Example, spec, uniform
from core.ir.fusion import FusedOp
from core.ir.op import Attr
from core.ir.tolerance import Tolerance
from core.ops.published import HIDDEN, INNER, PUBLISHED


class AddNormGateUp(FusedOp):
    """sum = a + b; out = swiglu(h @ gate.T, h @ up.T) with h = rms_norm(sum)."""

    name = "add_norm_gate_up"
    signature = ("a A[T,K], b A[T,K], norm G[K], gate W[N,K], up W[N,K] -> sum A[T,K], out A[T,N]")
    attributes: ClassVar = {"eps": Attr(float)}
    dtype_cases = (*uniform("A", "G", "W"), {"A": "f32", "G": "bf16", "W": "bf16"})
    tolerance = Tolerance(8, 4, "as add_rms_norm, then as gate_up_swiglu")

    def compose(self, g: Any, a: Any, b: Any, norm: Any, gate: Any, up: Any, *,  # noqa: ANN401
                eps: Any) -> Any:  # noqa: ANN401
        total = g.add("add", a, b)
        h = g.add("rms_norm", total, norm, eps=eps)
        return total, g.add("swiglu", g.add("linear", h, gate), g.add("linear", h, up))

    @property
    def weight_params(self) -> frozenset[str]:
        return frozenset({"norm", "gate", "up"})

    def examples(self) -> list[Example]:
        return [Example(f"T{t}_N{n}_K{k}", lambda r, t=t, n=n, k=k: {  # type: ignore[misc]
            "a": r.normal(t, k), "b": r.normal(t, k), "norm": 1 + r.normal(k),
            "gate": r.normal(n, k, scale=k**-0.5), "up": r.normal(n, k, scale=k**-0.5)},
            {"eps": eps}, large) for t, n, k, eps, large in (
                (1, 5632, 2048, 1e-5, False), (1, 352, 896, 1e-5, False),
                (1, 33, 264, 1e-5, False), (5, 33, 264, 1e-5, False),
                *((1, inner, 16, 1e-5, False) for inner in INNER),
                *((1, 48, *each, False) for each in HIDDEN),
                *((1, p.inner, p.hidden, p.eps, True) for p in PUBLISHED[1:]))]

    def error_examples(self) -> list[ErrorExample]:
        a, w = spec("f32[1,4]"), spec("f32[3,4]")
        good = {"a": a, "b": a, "norm": spec("f32[4]"), "gate": w, "up": w}
        return [ErrorExample({**good, "up": spec("f32[2,4]")}, {"eps": 1e-5}, ShapeError, "up"),
                ErrorExample(good, {}, OpError, "eps")]


class QkvLinear(FusedOp):
    """Computes three products with the same x: the query, key and value projections."""

    name = "qkv_linear"
    signature = ("x A[T,K], first W[N1,K], second W[N2,K], third W[N3,K], first_bias W[N1]?, "
                 "second_bias W[N2]?, third_bias W[N3]? "
                 "-> first_out A[T,N1], second_out A[T,N2], third_out A[T,N3]")
    dtype_cases = (*uniform("A", "W"), {"A": "f32", "W": "bf16"})
    tolerance = Tolerance(8, 4, "as linear")

    def compose(self, g: Any, x: Any, first: Any, second: Any, third: Any,  # noqa: ANN401
                first_bias: Any, second_bias: Any, third_bias: Any) -> Any:  # noqa: ANN401
        return (g.add("linear", x, first, first_bias), g.add("linear", x, second, second_bias),
                g.add("linear", x, third, third_bias))

    def examples(self) -> list[Example]:
        def make(r: Any, t: int, n: tuple[int, ...], k: int, bias: bool) -> Any:  # noqa: ANN401
            names = ("first", "second", "third")
            return {"x": r.normal(t, k),
                    **{m: r.normal(rows, k, scale=k**-0.5)
                       for m, rows in zip(names, n, strict=True)},
                    **{f"{m}_bias": r.normal(rows) if bias else None
                       for m, rows in zip(names, n, strict=True)}}
        return [Example(f"T{t}_K{k}_N{'_'.join(map(str, n))}" + ("_bias" if bias else ""),
                       lambda r, t=t, n=n, k=k, b=bias: make(r, t, n, k, b),  # type: ignore[misc]
                       {}, large=t * k * sum(n) > 6_000_000)
                # a plan's order: a pattern matches from its last node, the query's product
                for t, n, k, bias in (*((1, p.qkv[::-1], p.hidden, p.biases) for p in PUBLISHED),
                                      (1, (2048, 256, 256), 2048, False),
                                      (1, (33, 7, 5), 264, True),
                                      (5, (33, 7, 5), 264, True),
                                      (6, (96, 40, 40), 896, True),
                                      (16, (256, 64, 64), 2048, False),
                                      (17, (64, 16, 16), 96, False),
                                      (130, (136, 40, 40), 96, True))]

    def error_examples(self) -> list[ErrorExample]:
        w = spec("f32[3,4]")
        good = {"x": spec("f32[1,4]"), "first": w, "second": w, "third": spec("f32[3,5]")}
        return [ErrorExample(good, {}, ShapeError, "third")]
