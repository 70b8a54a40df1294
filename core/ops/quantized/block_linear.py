"""block_linear: defines a product with a matrix of 4 to 6-bit codes in blocks."""

from typing import Any, ClassVar

import numpy as np

from core.errors import OpError, ShapeError
from core.ir.examples import ErrorExample, Example, ExampleInputs, spec
from core.ir.op import Attr, Attrs, Env, need, out_dtype
from core.ir.tolerance import Tolerance
from core.ops.linear import Product
from core.ops.published import LONGEST_T
from core.ops.quantized_linear import unpack_codes
from core.tensor.tensor import Array


def unpack_high(codes: Array, high: Array | None, bits: int, columns: int) -> Array:
    """Return codes of 4 to 6 bits as int16 [N, columns], from 0 on."""
    low: Array = unpack_codes(codes, 4, columns)
    if high is not None:
        parts = high.view(np.uint8)[..., None] >> np.arange(0, 8, bits - 4, dtype=np.uint8)
        low |= (parts & (1 << bits - 4) - 1).reshape(low.shape).astype(np.int16) << 4
    return low


def expand_matrix(codes: Array, high: Array | None, steps: Array, scales: Array | None,
                  min_steps: Array | None, minimums: Array | None, *, bits: int, group_size: int,
                  block_size: int, columns: int) -> Array:
    """Return the matrix [N, columns] in the dtype of `steps`."""
    group, block = (np.arange(columns) // size for size in (group_size, block_size))
    code = unpack_high(codes, high, bits, columns).astype(steps.dtype)
    if min_steps is None:
        code -= 2 ** (bits - 1)
    code *= steps[:, block] * (1 if scales is None else scales[:, group].astype(steps.dtype))
    if min_steps is not None:
        code -= min_steps[:, block] * (
            1 if minimums is None else minimums[:, group].astype(steps.dtype))
    return code


def check_blocks(op: str, env: Env, attrs: Attrs, k: int | str) -> None:
    """Raise OpError unless the parts are those of rows of `k` columns in whole blocks."""
    bits, group, block = (attrs[n] for n in ("bits", "group_size", "block_size"))
    need(bits in (4, 5, 6), f"{op}: bits is {bits}, expected 4, 5 or 6")
    need(group > 0 and group % 8 == 0 and block % group == 0,
         f"{op}: blocks of {block} in groups of {group}, expected whole groups, which are "
         "multiples of 8")
    if isinstance(k, int):
        need(k % block == 0, f"{op}: {k} columns, expected whole blocks of {block}", ShapeError)
        for name, what, count in (("P", "codes", k // 2), ("S", "steps", k // block),
                                  ("G", "scales and minimums", k // group),
                                  ("H", "high", k * (bits - 4) // 8)):
            need(env.dims.get(name, count) == count,
                 f"{op}: {what} have {env.dims.get(name)} columns, expected {count} for {k} codes "
                 "a row", ShapeError)
    need(("H" in env.dims) == (bits > 4), f"{op}: `high` goes with 5 or 6 bits, and bits is {bits}")


class BlockLinear(Product):
    """Computes out = x @ w.T + bias with w[n,k] = steps[n,k//B] * scales[n,k//G] * code[n,k]
    - min_steps[n,k//B] * minimums[n,k//G].

    Codes are of 4, 5 or 6 bits. `codes` i4x2 [N,K/2] has their low four, `high` the others, 8 or 4
    codes a byte, the lower index in the lower bits. Without min_steps a code counts from the middle
    of its range: 2^(bits - 1) is 0. B = block_size and G = group_size divide the row in whole
    blocks and groups. Absent `scales` and `minimums` are 1. GGUF's types with blocks have this
    form, so a file's numbers are used as they are.
    """

    name = "block_linear"
    signature = ("x A[T,K], codes i4x2[N,P], high i8[N,H]?, steps f16[N,S], scales i8[N,G]?, "
                 "min_steps f16[N,S]?, minimums i8[N,G]?, bias B[N]? -> out O[T,N]")
    attributes: ClassVar = {"bits": Attr(int), "group_size": Attr(int), "block_size": Attr(int),
                            "out_dtype": Attr(str, None, structural=True)}
    dtype_cases = (*({"A": a, "B": a, "O": o} for a, o in
                     (("f32", "f32"), ("f16", "f16"), ("bf16", "bf16"), ("bf16", "f32"))),
                   {"A": "f32", "B": "bf16", "O": "f32"})
    tolerance = Tolerance(8, 4, "as quantized_linear")

    @property
    def weight_params(self) -> frozenset[str]:
        return frozenset(p.name for p in self.sig.params) - {"x"}

    def check(self, env: Env, attrs: Attrs) -> None:
        check_blocks(self.name, env, attrs, env.dims["K"])
        env.dtypes.setdefault("B", env.dtypes["A"])
        out_dtype(env, attrs)

    def reference(self, x: Array, codes: Array, high: Array | None, steps: Array,
                  scales: Array | None, min_steps: Array | None, minimums: Array | None,
                  bias: Array | None, *, bits: int, group_size: int, block_size: int) -> Array:
        out = x @ expand_matrix(codes, high, steps, scales, min_steps, minimums, bits=bits,
                                group_size=group_size, block_size=block_size,
                                columns=x.shape[1]).T
        return out if bias is None else out + bias

    def examples(self) -> list[Example]:
        def product(t: int, n: int, k: int, kind: str, bias: bool = False, *,
                    large: bool = True) -> Example:
            bits, group, block, *_ = FORMS[kind]

            def make(r: ExampleInputs) -> dict[str, Array | None]:
                return {"x": r.normal(t, k), "bias": r.normal(n) if bias else None,
                        **random_blocks(r, n, k, kind)}
            return Example(f"T{t}_N{n}_K{k}_{kind}" + ("_bias" if bias else ""), make,
                           {"bits": bits, "group_size": group, "block_size": block}, large=large)
        # a compiled backend makes a kernel for each form, dtype and kind of step: the usual run has
        # Q4_K in all of them, and --large the other forms
        return [product(0, 4, 256, "q4_k", large=False),
                product(1, 2048, 2048, "q4_k", large=False),
                product(8, 97, 512, "q4_k", large=False),
                product(64, 130, 256, "q4_k", True, large=False),
                product(1, 2048, 2048, "q6_k"), product(1, 333, 896, "q5_0", True),
                product(1, 37, 512, "q5_k", True), product(1, 35, 512, "q3_k"),
                product(1, 64, 256, "q2_k", True), product(1, 33, 96, "q4_1"),
                product(3, 130, 768, "q6_k", True), product(17, 352, 256, "q5_k", True),
                product(64, 33, 768, "q6_k"), product(33, 70, 160, "q5_1"),
                product(65, 4100, 256, "q6_k", True), product(LONGEST_T, 33, 512, "q4_k")]

    def error_examples(self) -> list[ErrorExample]:
        good = {"x": spec("f32[2,256]"), "codes": spec("i4x2[3,128]"), "steps": spec("f16[3,1]"),
                "scales": spec("i8[3,8]")}
        attrs = {"bits": 4, "group_size": 32, "block_size": 256}
        high = {**good, "high": spec("i8[3,64]")}
        return [ErrorExample(good, {**attrs, "bits": 8}, OpError, "bits is 8"),
                ErrorExample(good, {**attrs, "group_size": 12}, OpError, "multiples of 8"),
                ErrorExample(good, {**attrs, "bits": 6}, OpError, "`high` goes with"),
                ErrorExample(high, attrs, ShapeError, "high have 64 columns, expected 0"),
                ErrorExample(good, {**attrs, "group_size": 16}, ShapeError, "expected 16"),
                ErrorExample({**good, "steps": spec("f16[3,2]")}, attrs, ShapeError, "steps"),
                ErrorExample({**good, "x": spec("f32[2,128]")}, attrs, ShapeError, "whole blocks")]


#: GGUF's types in this form: bits, group, block, whether scales have two levels and a minimum
FORMS = {"q4_k": (4, 32, 256, True, True), "q5_k": (5, 32, 256, True, True),
         "q6_k": (6, 16, 256, True, False), "q5_0": (5, 32, 32, False, False),
         "q5_1": (5, 32, 32, False, True), "q4_1": (4, 32, 32, False, True),
         "q2_k": (4, 16, 256, True, True), "q3_k": (4, 16, 256, True, False)}


def random_blocks(r: ExampleInputs, rows: int, columns: int, kind: str) -> dict[str, Any]:
    """Return parts of a matrix [rows, columns] in a form, for examples."""
    bits, group, block, two, least = FORMS[kind]
    size = columns**-0.5 / (2 ** (bits - 1) * (32 if two else 1))

    def steps() -> Any:  # noqa: ANN401 - an array
        return size * (0.5 + abs(r.normal(rows, columns // block)))

    def small(low: int, high: int) -> Array:
        return r.ints(low, high, rows, columns // group).astype(np.int8)
    high = r.ints(-128, 128, rows, columns * (bits - 4) // 8).astype(np.int8)
    return {"codes": r.codes(4, rows, columns), "high": high if bits > 4 else None,
            "steps": steps(), "scales": small(0 if least else -64, 64) if two else None,
            "min_steps": steps() * 2 ** (bits - 1) if least else None,
            "minimums": small(0, 64) if two and least else None}
