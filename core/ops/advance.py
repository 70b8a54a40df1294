"""advance, pick_ids and put_tokens: hand sampled tokens to the next step without the host.

advance moves every sequence on by its new token, so that a decode step can repeat itself. pick_ids
and put_tokens keep the last token of each sequence on the device, so that steps whose sequences
change can be queued before their tokens are known.
"""

from typing import ClassVar

import numpy as np

from core.errors import DtypeError, OpError, ShapeError
from core.ir.examples import ErrorExample, Example, ExampleInputs, spec
from core.ir.op import Attr, Attrs, Env, Op, need
from core.ir.tolerance import EXACT
from core.tensor.tensor import Array


class Advance(Op):
    """Set ids = token; positions += 1; seq_lens += 1; slots follow from the block table.

    It closes the loop of a decode step on the device: a captured step can be replayed with no input
    from the host. A sequence with seq_lens 0 is idle and stays as it is; where the block table has
    no block for the position, the slot becomes -1 (see kv_cache_write).
    """

    name = "advance"
    signature = ("token i32[S], block_table i32[S,B], ids i32[S], positions i32[S], slots i32[S], "
                 "seq_lens i32[S] -> ids, positions, slots, seq_lens")
    attributes: ClassVar = {"block_size": Attr(int)}
    dtype_cases = ({},)
    tolerance = EXACT

    def check(self, env: Env, attrs: Attrs) -> None:
        size = attrs["block_size"]
        need(size > 0, f"advance: block_size is {size}, expected > 0")

    def reference(self, token: Array, block_table: Array, ids: Array, positions: Array,
                  slots: Array, seq_lens: Array, *, block_size: int,
                  ) -> tuple[Array, Array, Array, Array]:
        for s in range(len(token)):
            if seq_lens[s] == 0:
                continue
            ids[s] = token[s]
            positions[s] += 1
            seq_lens[s] += 1
            block, offset = divmod(int(positions[s]), block_size)
            owned = block < block_table.shape[1] and block_table[s, block] >= 0
            slots[s] = block_table[s, block] * block_size + offset if owned else -1
        return ids, positions, slots, seq_lens

    def examples(self) -> list[Example]:
        def batch(s: int) -> Example:
            def make(r: ExampleInputs) -> dict[str, Array | None]:
                table = r.rng.permutation(s * 4).reshape(s, 4).astype(np.int32)
                positions = r.ints(0, 63, s)
                positions[:1] = 63  # the next one has no block
                lens = positions + 1
                lens[1:2] = 0
                return {"token": r.ints(0, 1000, s), "block_table": table,
                        "ids": r.ints(0, 1000, s), "positions": positions,
                        "slots": r.ints(0, 64, s), "seq_lens": lens}
            return Example(f"S{s}", make, {"block_size": 16})
        return [batch(0), batch(1), batch(7)]

    def error_examples(self) -> list[ErrorExample]:
        i = spec("i32[2]")
        good = {"token": i, "block_table": spec("i32[2,4]"), "ids": i, "positions": i, "slots": i,
                "seq_lens": i}
        return [ErrorExample(good, {"block_size": 0}, OpError, "block_size"),
                ErrorExample({**good, "slots": spec("i32[3]")}, {"block_size": 16}, ShapeError,
                            "slots")]


class PickIds(Op):
    """Compute ids[t] = given[t] where that is at least 0, else last[-1 - given[t]].

    It lets the host queue a step before it knows the step's ids: -1 - n stands for the token that
    put_tokens left in place n. A place outside 0..N-1 gives id 0.
    """

    name = "pick_ids"
    signature = "given i32[T], last i32[N] -> ids i32[T]"
    dtype_cases = ({},)
    tolerance = EXACT

    def reference(self, given: Array, last: Array) -> Array:
        ids = np.zeros(len(given), np.int32)
        for t, n in enumerate(int(g) for g in given):
            if n >= 0:
                ids[t] = n
            elif -n <= len(last):
                ids[t] = last[-1 - n]
        return ids

    def examples(self) -> list[Example]:
        def mixed(t: int, n: int) -> Example:
            return Example(f"T{t}_N{n}", lambda r: {
                "given": np.where(r.rng.random(t) < 0.5, r.ints(-n, 0, t) if n else -1,
                                  r.ints(0, 1000, t)).astype(np.int32),
                "last": r.ints(0, 1000, n)}, {})

        def outside(r: ExampleInputs) -> dict[str, Array | None]:
            return {"given": np.array([-4, -3, 0, -5, -2**31, 2**31 - 1, -1], np.int32),
                    "last": r.ints(1, 1000, 3)}
        return [mixed(0, 4), mixed(1, 1), mixed(7, 3), mixed(256, 256), mixed(700, 33),
                mixed(4096, 33), mixed(3, 0), Example("outside", outside, {})]

    def error_examples(self) -> list[ErrorExample]:
        i = spec("i32[2]")
        return [ErrorExample({"given": spec("f32[2]"), "last": i}, {}, DtypeError, "given"),
                ErrorExample({"given": spec("i32[2,1]"), "last": i}, {}, ShapeError, "given"),
                ErrorExample({"given": i}, {}, OpError, "last")]


class PutTokens(Op):
    """Set last[places[r]] = token[r]; a place outside 0..N-1 writes nothing.

    It keeps the newest token of each sequence for pick_ids. The places that write are distinct.
    """

    name = "put_tokens"
    signature = "token i32[R], places i32[R], last i32[N] -> last"
    dtype_cases = ({},)
    tolerance = EXACT

    def reference(self, token: Array, places: Array, last: Array) -> Array:
        for r, place in enumerate(places):
            if 0 <= place < len(last):
                last[place] = token[r]
        return last

    def examples(self) -> list[Example]:
        def some(rows: int, n: int) -> Example:
            def make(r: ExampleInputs) -> dict[str, Array | None]:
                places = r.rng.permutation(max(rows, n))[:rows].astype(np.int32)
                places[1::3] = -1
                places[2::5] = n + 3
                return {"token": r.ints(0, 1000, rows), "places": places,
                        "last": r.ints(0, 1000, n)}
            return Example(f"R{rows}_N{n}", make, {})

        def outside(r: ExampleInputs) -> dict[str, Array | None]:
            return {"token": r.ints(0, 1000, 6), "last": r.ints(0, 1000, 4),
                    "places": np.array([4, -2**31, 3, -1, 2**31 - 1, 0], np.int32)}
        return [some(0, 4), some(1, 1), some(5, 9), some(256, 256), some(700, 800), some(3, 0),
                Example("outside", outside, {})]

    def error_examples(self) -> list[ErrorExample]:
        i = spec("i32[2]")
        good = {"token": i, "places": i, "last": spec("i32[5]")}
        return [ErrorExample({**good, "places": spec("i32[3]")}, {}, ShapeError, "places"),
                ErrorExample({**good, "last": spec("f32[5]")}, {}, DtypeError, "last")]
