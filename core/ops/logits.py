"""adjust_logits and log_probs: define what happens to logits before a token is sampled, and what a
user is told about it."""

from typing import Any, ClassVar

import numpy as np

from core.errors import DtypeError, OpError, ShapeError
from core.ir.examples import ErrorExample, Example, ExampleInputs, spec
from core.ir.op import Attr, Attrs, Env, Op, need
from core.ir.tolerance import Tolerance
from core.tensor.tensor import Array

MOST_TOP = 20  # log-probs that log_probs gives beside the chosen one


class AdjustLogits(Op):
    """Apply penalties and biases to single logits of each row, then forbid tokens by a mask.

    Entry e belongs to row r where starts[r] <= e < starts[r+1]; entries behind starts[R] are
    padding. In float32, each step rounded:

    1. x = logits[r, ids[e]]; x = x / penalties[e] where x > 0, else x * penalties[e];
    2. out[r, ids[e]] = x + add[e];
    3. where there is a mask, out[r, v] = -Inf unless bit v % 32 of mask[r, v // 32] is set.

    All other logits are copied. The result is rounded once to the dtype of the logits. The ids of a
    row are distinct; one outside 0..V-1 changes nothing. The penalty is that of repetition (1: no
    change); `add` carries presence and frequency penalties, biases, and -Inf for a token that may
    not be sampled.
    """

    name = "adjust_logits"
    signature = ("logits A[R,V], starts i32[R+1], ids i32[E], penalties f32[E], add f32[E], "
                 "mask i32[R,W]? -> out A[R,V]")
    dtype_cases = ({"A": "f32"}, {"A": "f16"}, {"A": "bf16"})
    tolerance = Tolerance(0, 0, "the definition says which float32 operations, so every backend "
                          "samples from equal logits", exact=True)

    def check(self, env: Env, attrs: Attrs) -> None:
        width, words = env.dims["V"], env.dims.get("W")
        if isinstance(width, int) and isinstance(words, int):
            need(words == -(-width // 32), f"adjust_logits: `mask` has {words} words a row, "
                 f"expected {-(-width // 32)} for {width} logits, 32 in a word", ShapeError)

    def reference(self, logits: Array, starts: Array, ids: Array, penalties: Array, add: Array,
                  mask: Array | None) -> Array:
        out = logits.astype(np.float32)
        penalties, add = penalties.astype(np.float32), add.astype(np.float32)
        for r in range(len(out)):
            for e in range(starts[r], starts[r + 1]):
                if 0 <= ids[e] < out.shape[1]:
                    x = out[r, ids[e]]
                    x = x / penalties[e] if x > 0 else x * penalties[e]
                    out[r, ids[e]] = x + add[e]
        if mask is not None:
            token = np.arange(out.shape[1])
            out[mask[:, token // 32] >> token % 32 & 1 == 0] = -np.inf
        return out.astype(logits.dtype)

    def examples(self) -> list[Example]:
        def rows(name: str, rows: int, v: int, entries: int, mask: bool, padding: int = 0,
                 ) -> Example:
            def make(r: ExampleInputs) -> dict[str, Array | None]:
                counts = r.ints(0, min(v, entries) + 1, rows)
                counts[1::3] = 0
                ids = [r.rng.permutation(v)[:n] for n in counts]
                total = int(counts.sum()) + padding
                add = r.normal(total)
                add[::5], add[::7] = 0, -np.inf
                return {"logits": r.normal(rows, v, scale=4),
                        "starts": np.cumsum([0, *counts]).astype(np.int32),
                        "ids": np.concatenate([*ids, r.ints(0, v, padding)]).astype(np.int32),
                        "penalties": r.ints(2, 8, total) / 4, "add": add,
                        "mask": r.ints(-2**31, 2**31 - 1, rows, -(-v // 32)) if mask else None}
            return Example(name, make, {})

        def odd(r: ExampleInputs) -> dict[str, Array | None]:
            """Hold ids outside the vocabulary, values that are not finite, zeros and overflow."""
            ids = [0, 1, 2, 3, 4, 5, -1, 33, 2**31 - 1, -2**31, 0, 32, 31, 6]
            logits = r.normal(3, 33)
            logits[0, :6] = [np.nan, np.inf, -np.inf, 0, 3e4, -3e4]
            mask = np.full((3, 2), -1, np.int32)
            mask[1], mask[2] = 0, [-2**31, 0]
            add = np.zeros(len(ids))
            add[[1, 10]] = -np.inf
            return {"logits": logits, "starts": np.array([0, 10, 12, 14], np.int32), "mask": mask,
                    "ids": np.array(ids, np.int64).astype(np.int32),
                    "penalties": np.array([2, 2, 2, 2, 1e-38, 1e38, *[0.0] * 8]), "add": add}
        return [rows("R0", 0, 8, 0, True), rows("R3_without_entries", 3, 65, 0, False),
                rows("R3_mask_alone", 3, 65, 0, True), rows("R1_V1", 1, 1, 1, True),
                rows("R5_V321_mask_padding", 5, 321, 40, True, 9),
                rows("R17_V512", 17, 512, 512, False), rows("R64_V1000_mask", 64, 1000, 30, True),
                rows("R2_V128256_mask", 2, 128256, 3000, True), Example("odd", odd, {})]

    def error_examples(self) -> list[ErrorExample]:
        f, i = spec("f32[4]"), spec("i32[4]")
        good = {"logits": spec("f32[2,33]"), "starts": spec("i32[3]"), "ids": i, "penalties": f,
                "add": f}
        return [ErrorExample({**good, "starts": i}, {}, ShapeError, "starts"),
                ErrorExample({**good, "add": spec("f32[5]")}, {}, ShapeError, "add"),
                ErrorExample({**good, "mask": spec("i32[2,1]")}, {}, ShapeError, "2 for 33"),
                ErrorExample({**good, "mask": spec("i8[2,2]")}, {}, DtypeError, "mask")]


class LogProbs(Op):
    """Compute the log-probability and rank of one chosen token a row, and the `n` likeliest tokens.

    A log-probability is x - max - log(sum(exp(x - max))) over the row. Where the largest logit is
    NaN, +Inf or -Inf every one is NaN. The rank is 1 + the number of larger logits; `top_ids` are
    the largest logits, larger first, and of equal ones the lower index first. NaN counts as larger
    than +Inf, as in argmax. A token outside 0..V-1 has the log-probability NaN and rank 0.
    """

    name = "log_probs"
    signature = ("logits A[R,V], token i32[R] "
                 "-> chosen f32[R], rank i32[R], top_ids i32[R,N], top f32[R,N]")
    attributes: ClassVar = {"n": Attr(int)}
    dtype_cases = ({"A": "f32"}, {"A": "f16"}, {"A": "bf16"})
    tolerance = Tolerance(8, 4, "exp may err by a few ULP, and V terms may be summed in any order; "
                          "without the largest term, 1, in the sum nothing cancels")

    def check(self, env: Env, attrs: Attrs) -> None:
        n, width = attrs["n"], env.dims["V"]
        most = min(MOST_TOP, width) if isinstance(width, int) else MOST_TOP
        need(0 <= n <= most, f"log_probs: n is {n}, expected 0 to {most}")
        env.dims["N"] = n

    def reference(self, logits: Array, token: Array, *, n: int) -> tuple[Array, ...]:
        rows, width = logits.shape
        chosen, rank = np.full(rows, np.nan, logits.dtype), np.zeros(rows, np.int32)
        top_ids, top = np.empty((rows, n), np.int32), np.empty((rows, n), logits.dtype)
        for r, row in enumerate(logits):
            order = np.argsort(-row, kind="stable")  # NaN comes last, in order of index
            order = np.roll(order, np.isnan(row).sum())
            terms = np.exp(row - row[order[0]])
            terms[order[0]] -= 1
            log_probs = row - row[order[0]] - np.log1p(terms.sum())
            top_ids[r], top[r] = order[:n], log_probs[order[:n]]
            if 0 <= token[r] < width:
                x = row[token[r]]
                larger = (row > x) | np.isnan(row)
                chosen[r], rank[r] = log_probs[token[r]], 1 if np.isnan(x) else 1 + larger.sum()
        return chosen, rank, top_ids, top

    def examples(self) -> list[Example]:
        def rows(rows: int, v: int, n: int, scale: float = 3) -> Example:
            def make(r: ExampleInputs) -> dict[str, Array | None]:
                logits = r.normal(rows, v, scale=scale)
                token = r.ints(0, v, rows)
                if rows:
                    token[0] = logits[0].argmax()
                return {"logits": logits, "token": token}
            return Example(f"R{rows}_V{v}_n{n}", make, {"n": n})

        def ties(r: ExampleInputs) -> dict[str, Array | None]:
            logits = r.ints(-3, 3, 4, 1000).astype(np.float64)
            logits[1] = 2
            return {"logits": logits, "token": np.array([5, 999, 0, 77], np.int32)}

        def certain(r: ExampleInputs) -> dict[str, Array | None]:
            """Hold log-probs near 0, whose sum would round to 1."""
            logits = r.normal(3, 100)
            logits[[0, 1, 2], [7, 99, 0]] = [24, 20, 40]
            return {"logits": logits, "token": np.array([7, 99, 0], np.int32)}

        def odd(r: ExampleInputs) -> dict[str, Array | None]:
            nan, inf = np.nan, np.inf
            logits = r.normal(8, 40)
            logits[1, [3, 30]], logits[2, [3, 9, 30]] = nan, [inf, nan, inf]
            logits[3, 5], logits[4], logits[5, 1:] = inf, -inf, -inf
            logits[6, ::2], logits[7, :2] = -inf, [0.0, -0.0]
            return {"logits": logits, "token": np.array([-1, 30, 3, 4, 2, 0, 8, 40], np.int32)}
        return [rows(0, 8, 5), rows(1, 512, 0), rows(1, 128256, 20), rows(5, 321, 5),
                rows(17, 64, 20), rows(2, 1, 1), rows(64, 1000, 1), rows(3, 20, 20),
                rows(4, 321, 3, 30), *(Example(make.__name__, make, {"n": 20})
                                       for make in (ties, certain, odd))]

    def error_examples(self) -> list[ErrorExample]:
        good: dict[str, Any] = {"logits": spec("f32[2,9]"), "token": spec("i32[2]")}
        return [ErrorExample(good, {"n": -1}, OpError, "n is -1"),
                ErrorExample(good, {"n": 10}, OpError, "expected 0 to 9"),
                ErrorExample({**good, "logits": spec("f32[2,99]")}, {"n": 21}, OpError, "to 20"),
                ErrorExample({**good, "token": spec("i32[3]")}, {"n": 1}, ShapeError, "token")]
