"""advance: move every sequence on by its new token, so that a decode step can repeat itself."""

from typing import ClassVar

import numpy as np

from core.errors import OpError, ShapeError
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
