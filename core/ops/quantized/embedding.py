"""quantized_embedding, block_embedding: define look-ups in tables that are kept in codes."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from core.errors import DtypeError, OpError, ShapeError
from core.ir.examples import ErrorExample, Example, ExampleInputs, spec
from core.ir.op import Attr, Attrs, Cost, Env, Op, Specs, need, out_dtype
from core.ir.tolerance import Tolerance
from core.ops.embedding import check_ids
from core.ops.published import GROUPS, LONGEST_T, PUBLISHED
from core.ops.quantized.block_linear import FORMS, check_blocks, expand_matrix, random_blocks
from core.ops.quantized_linear import check_groups, expand_weight
from core.tensor.tensor import Array


class CodedEmbedding(Op):
    """States what both look-ups share: rows of every part by id, and the shape of the result.

    `columns` is D: two codes in a byte do not say whether the last one counts.
    """

    tolerance = Tolerance(4, 4, "a code, its scale and its zero or minimum meet in three float32 "
                          "roundings, in any order")

    @property
    def weight_params(self) -> frozenset[str]:
        return frozenset(p.name for p in self.sig.params) - {"ids"}

    def inputs_in(self, compute: type[np.floating[Any]], inputs: Mapping[str, Any],
                  ) -> dict[str, Any]:
        """Return the inputs with only the requested rows as the table: in float64 a whole one takes
        gigabytes."""
        ids = inputs["ids"]
        rows = {name: None if part is None else part[ids] for name, part in inputs.items()
                if name != "ids"}
        return super().inputs_in(compute, {"ids": np.arange(len(ids), dtype=np.int32), **rows})

    def check_values(self, inputs: Mapping[str, Any]) -> None:
        check_ids(self.name, inputs["ids"], len(inputs["codes"]))

    def cost(self, inputs: Specs, attrs: Attrs) -> Cost:
        out, ids, codes = self.infer(inputs, attrs)["out"], inputs["ids"], inputs["codes"]
        assert ids is not None and codes is not None  # infer has checked
        table = sum(s.nbytes for n, s in inputs.items() if s is not None and n != "ids")
        rows = table * int(ids.shape[0]) // max(1, int(codes.shape[0]))
        return Cost(2 * out.nbytes // out.dtype.itemsize, ids.nbytes + rows + out.nbytes)

    def _complete(self, env: Env, attrs: Attrs) -> None:
        need(attrs["columns"] > 0, f"{self.name}: columns is {attrs['columns']}, expected > 0")
        env.dims["D"] = attrs["columns"]
        out_dtype(env, attrs)


class QuantizedEmbedding(CodedEmbedding):
    """Computes out[t] = w[ids[t]] with the table w of `quantized_linear`, converted to
    `out_dtype`."""

    name = "quantized_embedding"
    signature = ("ids i32[T], codes Q[V,P], scales f32[V,G], zeros f32[V,G]? -> out O[T,D]")
    attributes: ClassVar = {"bits": Attr(int), "group_size": Attr(int), "columns": Attr(int),
                            "out_dtype": Attr(str, "f32", structural=True)}
    dtype_cases = tuple({"Q": q, "O": o} for q in ("i8", "i4x2") for o in ("f32", "f16", "bf16"))

    def check(self, env: Env, attrs: Attrs) -> None:
        self._complete(env, attrs)
        check_groups(self.name, env, attrs, attrs["columns"])

    def reference(self, ids: Array, codes: Array, scales: Array, zeros: Array | None, *,
                  bits: int, group_size: int, columns: int) -> Array:
        return expand_weight(codes, scales, zeros, bits, group_size, columns)[ids]

    def examples(self) -> list[Example]:
        def rows(t: int, v: int, d: int, bits: int, group: int, zeros: bool = False, *,
                 large: bool = False) -> Example:
            def make(r: ExampleInputs) -> dict[str, Array | None]:
                shape = v, -(-d // group)
                return {"ids": r.ints(0, v, t), "codes": r.codes(bits, v, d),
                        "scales": 0.5 + abs(r.normal(*shape)),
                        "zeros": r.ints(0, 16, *shape).astype(np.float64) if zeros else None}
            return Example(f"T{t}_V{v}_D{d}_g{group}" + "_zeros" * zeros, make,
                           {"bits": bits, "group_size": group, "columns": d}, large,
                           only={"Q": "i8" if bits == 8 else "i4x2"})
        return [rows(0, 5, 64, 8, 64), rows(1, 300, 896, 8, 32), rows(17, 40, 100, 8, 64, True),
                rows(0, 5, 64, 4, 32), rows(1, 300, 896, 4, 32), rows(17, 40, 33, 4, 32, True),
                rows(LONGEST_T, 40, 64, 8, 64),
                *(rows(2, p.vocab, p.hidden, bits, group, large=True) for p in PUBLISHED
                  for bits, group in GROUPS)]

    def error_examples(self) -> list[ErrorExample]:
        good = {"ids": spec("i32[3]"), "codes": spec("i8[5,64]"), "scales": spec("f32[5,1]")}
        attrs = {"bits": 8, "group_size": 64, "columns": 64}
        return [ErrorExample({**good, "ids": spec("f32[3]")}, attrs, DtypeError, "ids"),
                ErrorExample(good, {**attrs, "bits": 4}, OpError, "i4x2"),
                ErrorExample(good, {**attrs, "columns": 0}, OpError, "columns is 0"),
                ErrorExample(good, {**attrs, "columns": 63}, ShapeError, "bytes a row"),
                ErrorExample({**good, "scales": spec("f32[5,2]")}, attrs, ShapeError, "groups")]


class BlockEmbedding(CodedEmbedding):
    """Computes out[t] = w[ids[t]] with the table w of `block_linear`, converted to `out_dtype`."""

    name = "block_embedding"
    signature = ("ids i32[T], codes i4x2[V,P], high i8[V,H]?, steps f16[V,S], scales i8[V,G]?, "
                 "min_steps f16[V,S]?, minimums i8[V,G]? -> out O[T,D]")
    attributes: ClassVar = {"bits": Attr(int), "group_size": Attr(int), "block_size": Attr(int),
                            "columns": Attr(int), "out_dtype": Attr(str, "f32", structural=True)}
    dtype_cases = ({"O": "f32"}, {"O": "f16"}, {"O": "bf16"})

    def check(self, env: Env, attrs: Attrs) -> None:
        self._complete(env, attrs)
        check_blocks(self.name, env, attrs, attrs["columns"])

    def reference(self, ids: Array, codes: Array, high: Array | None, steps: Array,
                  scales: Array | None, min_steps: Array | None, minimums: Array | None, *,
                  bits: int, group_size: int, block_size: int, columns: int) -> Array:
        return expand_matrix(codes, high, steps, scales, min_steps, minimums, bits=bits,
                             group_size=group_size, block_size=block_size, columns=columns)[ids]

    def examples(self) -> list[Example]:
        def rows(t: int, v: int, d: int, kind: str, *, large: bool = False,
                 only: dict[str, str] | None = None) -> Example:
            bits, group, block, *_ = FORMS[kind]
            return Example(f"T{t}_V{v}_D{d}_{kind}", lambda r: {
                "ids": r.ints(0, v, t), **random_blocks(r, v, d, kind)},
                {"bits": bits, "group_size": group, "block_size": block, "columns": d}, large,
                only=only)
        # a form ends before the result is rounded: each is in float32, some in every dtype
        return [rows(0, 5, 256, "q4_k"), rows(1, 300, 2048, "q6_k"), rows(17, 33, 896, "q5_0"),
                *(rows(3, 40, 256, kind, only={"O": "f32"}) for kind in FORMS),
                rows(LONGEST_T, 40, 256, "q4_k"),
                *(rows(2, p.vocab, p.hidden, "q6_k" if p.hidden % 256 == 0 else "q5_0", large=True)
                  for p in PUBLISHED)]

    def error_examples(self) -> list[ErrorExample]:
        good = {"ids": spec("i32[2]"), "codes": spec("i4x2[3,128]"), "steps": spec("f16[3,1]"),
                "scales": spec("i8[3,8]")}
        attrs = {"bits": 4, "group_size": 32, "block_size": 256, "columns": 256}
        return [ErrorExample({**good, "ids": spec("f32[2]")}, attrs, DtypeError, "ids"),
                ErrorExample(good, {**attrs, "bits": 8}, OpError, "bits is 8"),
                ErrorExample(good, {**attrs, "columns": -1}, OpError, "columns is -1"),
                ErrorExample(good, {**attrs, "columns": 512}, ShapeError, "codes have 128"),
                ErrorExample({**good, "steps": spec("f16[3,2]")}, attrs, ShapeError, "steps")]
