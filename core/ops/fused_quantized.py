"""Define the fused products of `core.ops.fused_linear` with quantised weights."""

from typing import Any, ClassVar

from core.errors import ShapeError
from core.ir.examples import ErrorExample, Example, ExampleInputs, spec
from core.ir.fusion import FusedOp
from core.ir.op import Attr, Attrs, Env
from core.ir.tolerance import Tolerance
from core.ops.published import GROUPS, HIDDEN, INNER, PUBLISHED


class QkvQuantized(FusedOp):
    """Computes three products of quantised matrices with the same x."""

    name = "qkv_quantized"
    signature = ("x A[T,K], first Q[N1,P], first_scales f32[N1,G], first_zeros f32[N1,G]?, "
                 "second Q[N2,P], second_scales f32[N2,G], second_zeros f32[N2,G]?, "
                 "third Q[N3,P], third_scales f32[N3,G], third_zeros f32[N3,G]?, "
                 "first_bias B[N1]?, second_bias B[N2]?, third_bias B[N3]? "
                 "-> first_out A[T,N1], second_out A[T,N2], third_out A[T,N3]")
    attributes: ClassVar = {"bits": Attr(int), "group_size": Attr(int)}
    dtype_cases = tuple({"A": a, "Q": q, "B": a} for q in ("i8", "i4x2") for a in
                        ("f32", "f16", "bf16"))
    tolerance = Tolerance(8, 4, "as quantized_linear")

    def check(self, env: Env, attrs: Attrs) -> None:
        env.dtypes.setdefault("B", env.dtypes["A"])

    def compose(self, g: Any, x: Any, first: Any, first_scales: Any, first_zeros: Any,  # noqa: ANN401
                second: Any, second_scales: Any, second_zeros: Any, third: Any,  # noqa: ANN401
                third_scales: Any, third_zeros: Any, first_bias: Any, second_bias: Any,  # noqa: ANN401
                third_bias: Any, *, bits: Any, group_size: Any) -> Any:  # noqa: ANN401
        how = {"bits": bits, "group_size": group_size}
        return (g.add("quantized_linear", x, first, first_scales, first_zeros, first_bias, **how),
                g.add("quantized_linear", x, second, second_scales, second_zeros, second_bias,
                      **how),
                g.add("quantized_linear", x, third, third_scales, third_zeros, third_bias, **how))

    @property
    def weight_params(self) -> frozenset[str]:
        return frozenset(p.name for p in self.sig.params) - {"x"}

    def examples(self) -> list[Example]:
        def product(t: int, n: tuple[int, ...], k: int, bits: int, group: int, zeros: bool,
                    bias: bool) -> Example:
            def make(r: ExampleInputs) -> dict[str, Any]:
                made: dict[str, Any] = {"x": r.normal(t, k)}
                for name, rows in zip(("first", "second", "third"), n, strict=True):
                    made |= {f"{name}{part}": a for part, a in
                             random_codes(r, rows, k, bits, group, zeros=zeros).items()}
                    made[f"{name}_bias"] = r.normal(rows) if bias else None
                return made
            rows = "_".join(map(str, n))
            return Example(f"T{t}_K{k}_N{rows}_g{group}" + "_zeros" * zeros + "_bias" * bias, make,
                           {"bits": bits, "group_size": group}, k * sum(n) > 6_000_000,
                           only={"Q": "i8" if bits == 8 else "i4x2"})
        return [*(product(t, n, k, bits, 64, extra, extra) for bits in (8, 4)
                  for t, n, k, extra in ((1, (2048, 256, 256), 2048, False),
                                        (1, (33, 7, 5), 320, True), (5, (33, 7, 5), 384, True))),
                # a plan's order: a pattern matches from its last node, the query's product
                *(product(1, p.qkv[::-1], p.hidden, bits, group, bits == 4, p.biases)
                  for p in PUBLISHED for bits, group in GROUPS)]

    def error_examples(self) -> list[ErrorExample]:
        codes, scales = spec("i8[3,64]"), spec("f32[3,1]")
        good = {"x": spec("f32[1,64]"), "first": codes, "first_scales": scales, "second": codes,
                "second_scales": scales, "third": codes, "third_scales": spec("f32[3,2]")}
        return [ErrorExample(good, {"bits": 8, "group_size": 64}, ShapeError, "third_scales")]


class AddNormQuantizedGateUp(FusedOp):
    """Computes add_norm_gate_up with quantised matrices."""

    name = "add_norm_quantized_gate_up"
    signature = ("a A[T,K], b A[T,K], norm G[K], gate Q[N,P], gate_scales f32[N,M], "
                 "gate_zeros f32[N,M]?, up Q[N,P], up_scales f32[N,M], up_zeros f32[N,M]? "
                 "-> sum A[T,K], out A[T,N]")
    attributes: ClassVar = {"eps": Attr(float), "bits": Attr(int), "group_size": Attr(int)}
    dtype_cases = tuple({"A": a, "G": a, "Q": q} for q in ("i8", "i4x2") for a in
                        ("f32", "f16", "bf16"))
    tolerance = Tolerance(8, 4, "as add_rms_norm, then as quantized_linear and swiglu; a kernel "
                          "may round elsewhere than the composition, and of two such errors on 48 "
                          "columns one is half as large again as the other", roundings=1.5)

    def compose(self, g: Any, a: Any, b: Any, norm: Any, gate: Any, gate_scales: Any,  # noqa: ANN401
                gate_zeros: Any, up: Any, up_scales: Any, up_zeros: Any, *, eps: Any,  # noqa: ANN401
                bits: Any, group_size: Any) -> Any:  # noqa: ANN401
        how = {"bits": bits, "group_size": group_size}
        total = g.add("add", a, b)
        h = g.add("rms_norm", total, norm, eps=eps)
        return total, g.add(
            "swiglu", g.add("quantized_linear", h, gate, gate_scales, gate_zeros, None, **how),
            g.add("quantized_linear", h, up, up_scales, up_zeros, None, **how))

    @property
    def weight_params(self) -> frozenset[str]:
        return frozenset(p.name for p in self.sig.params) - {"a", "b"}

    def examples(self) -> list[Example]:
        def product(t: int, n: int, k: int, bits: int, group: int, zeros: bool,
                    eps: float = 1e-5, *, large: bool = False) -> Example:
            def make(r: ExampleInputs) -> dict[str, Any]:
                made = {"a": r.normal(t, k), "b": r.normal(t, k), "norm": 1 + r.normal(k)}
                for name in ("gate", "up"):
                    made |= {f"{name}{part}": x for part, x in
                             random_codes(r, n, k, bits, group, zeros=zeros).items()}
                return made
            return Example(f"T{t}_N{n}_K{k}_g{group}" + "_zeros" * zeros, make,
                           {"eps": eps, "bits": bits, "group_size": group}, large,
                           only={"Q": "i8" if bits == 8 else "i4x2"})
        return [*(product(t, n, k, bits, 64, zeros) for bits in (8, 4)
                  for t, n, k, zeros in ((1, 5632, 2048, False), (1, 33, 320, True),
                                        (5, 33, 384, True))),
                *(product(1, inner, 64, bits, group, bits == 4) for inner in INNER
                  for bits, group in GROUPS),
                *(product(1, 48, hidden, bits, group, bits == 4, eps) for hidden, eps in HIDDEN
                  for bits, group in GROUPS),
                *(product(1, p.inner, p.hidden, bits, group, bits == 4, p.eps, large=True)
                  for p in PUBLISHED for bits, group in GROUPS
                  if (p.inner, bits) != (5632, 8))]

    def error_examples(self) -> list[ErrorExample]:
        a, codes, scales = spec("f32[1,64]"), spec("i8[3,64]"), spec("f32[3,1]")
        good = {"a": a, "b": a, "norm": spec("f32[64]"), "gate": codes, "gate_scales": scales,
                "up": codes, "up_scales": spec("f32[2,1]")}
        return [ErrorExample(good, {"eps": 1e-5, "bits": 8, "group_size": 64}, ShapeError,
                            "up_scales")]


def random_codes(r: ExampleInputs, rows: int, columns: int, bits: int, group: int, *,
                 zeros: bool) -> dict[str, Any]:
    """Return codes (under the name ""), scales and zeros for examples."""
    groups = -(-columns // group)
    scale = columns**-0.5 / (64 if bits == 8 else 4)
    return {"": r.codes(bits, rows, columns),
            "_scales": (0.5 + abs(r.normal(rows, groups))) * scale,
            "_zeros": r.ints(0, 16, rows, groups).astype("float64") if zeros else None}
