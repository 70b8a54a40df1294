"""embedding: gather rows of a table. Also takes the last token's row of a hidden state."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from core.errors import DtypeError, ShapeError
from core.ir.examples import ErrorExample, Example, spec
from core.ir.op import Attr, Attrs, Cost, Env, Op, Specs, need, out_dtype
from core.ir.tolerance import EXACT
from core.ops.published import HIDDEN, LONGEST_T, PUBLISHED, VOCABS
from core.tensor.tensor import Array


def check_ids(op: str, ids: Array, rows: int) -> None:
    """Raise OpError unless every id is a row of the table of that op."""
    wrong = [int(i) for i in ids if not 0 <= i < rows]
    need(not wrong, f"{op}: ids {wrong[:5]} are outside the table: expected 0 to {rows - 1}")


class Embedding(Op):
    """Computes out[t] = table[ids[t]], converted to `out_dtype` (None: the table's own dtype)."""

    name = "embedding"
    signature = "ids i32[T], table W[V,D] -> out O[T,D]"
    attributes: ClassVar = {"out_dtype": Attr(str, None, structural=True)}
    dtype_cases = (
        {"W": "f32", "O": "f32"}, {"W": "f16", "O": "f16"}, {"W": "bf16", "O": "bf16"},
        {"W": "bf16", "O": "f32"}, {"W": "f16", "O": "f32"})
    tolerance = EXACT

    def check(self, env: Env, attrs: Attrs) -> None:
        out_dtype(env, attrs, default="W")
        table, out = env.dtypes["W"], env.dtypes["O"]
        if out != table and out.itemsize <= table.itemsize:
            raise DtypeError(f"embedding: out_dtype {out} would lose bits of a {table} table; "
                             "expected the table's own dtype or f32")

    def reference(self, ids: Array, table: Array) -> Array:
        return np.stack([table[i] for i in ids]) if len(ids) else table[:0]

    def inputs_in(self, compute: type[np.floating[Any]], inputs: Mapping[str, Any],
                  ) -> dict[str, Any]:
        """Return the inputs with only the requested rows as the table: in float64 a whole one takes
        gigabytes."""
        rows = inputs["table"][inputs["ids"]]
        return super().inputs_in(compute, {"ids": np.arange(len(rows), dtype=np.int32),
                                           "table": rows})

    def check_values(self, inputs: Mapping[str, Any]) -> None:
        check_ids(self.name, inputs["ids"], len(inputs["table"]))

    def cost(self, inputs: Specs, attrs: Attrs) -> Cost:
        out = self.infer(inputs, attrs)["out"]
        ids, table = inputs["ids"], inputs["table"]
        assert ids is not None and table is not None  # infer has checked
        rows = out.nbytes // out.dtype.itemsize * table.dtype.itemsize
        return Cost(0, ids.nbytes + rows + out.nbytes)

    def examples(self) -> list[Example]:
        def rows(t: int, v: int, d: int, *, large: bool = False) -> Example:
            return Example(f"T{t}_V{v}_D{d}", lambda r: {"ids": r.ints(0, v, t),
                                                        "table": r.normal(v, d)}, {}, large)
        return [rows(0, 5, 8), rows(1, 512, 128), rows(17, 321, 33), rows(512, 1000, 64),
                rows(LONGEST_T, 100, 64), *(rows(3, vocab, 16) for vocab in VOCABS),
                *(rows(3, 50, d) for d, _ in HIDDEN),
                *(rows(2, p.vocab, p.hidden, large=True) for p in PUBLISHED)]

    def error_examples(self) -> list[ErrorExample]:
        ids, table = spec("i32[3]"), spec("f32[5,4]")
        return [ErrorExample({"ids": spec("f32[3]"), "table": table}, {}, DtypeError, "ids"),
                ErrorExample({"ids": ids, "table": spec("f32[5]")}, {}, ShapeError, "table"),
                ErrorExample({"ids": ids, "table": table}, {"out_dtype": "f16"}, DtypeError,
                             "lose")]
