"""rope: defines rotary position embedding (Su et al. 2021, https://arxiv.org/abs/2104.09864)."""

from typing import ClassVar

import numpy as np

from core.errors import OpError, ShapeError
from core.ir.examples import ErrorExample, Example, ExampleInputs, spec, uniform
from core.ir.op import Attr, Attrs, Env, Op, divisible, need
from core.ir.tolerance import Tolerance
from core.ops.published import HEADS, LONGEST_T
from core.tensor.tensor import Array


class Rope(Op):
    """Rotate pairs of each head by the angle float32(position) * inv_freq[i], rounded to float32.

    interleaved: pairs (2i, 2i+1), as in llama2.c and Meta's files. Otherwise half-split: pairs
    (i, i + d/2), as in Hugging Face files. The angle's one rounding is part of the definition: it
    is what published models were trained with, and at long positions it is far above the rest.
    """

    name = "rope"
    signature = "x A[T,H,d], positions i32[T], inv_freq f32[d/2] -> out A[T,H,d]"
    attributes: ClassVar = {"interleaved": Attr(bool, False)}
    dtype_cases = uniform("A")
    tolerance = Tolerance(4, 4, "sine and cosine may err by an ULP, then two products and a sum")

    def check(self, env: Env, attrs: Attrs) -> None:
        d = env.dims["d"]
        need(divisible(d, 2), f"rope: head size d is {d}, expected an even number", ShapeError)

    def reference(self, x: Array, positions: Array, inv_freq: Array, *, interleaved: bool) -> Array:
        out = np.empty_like(x)
        half = x.shape[-1] // 2
        for t, position in enumerate(positions):
            angle = (np.float32(position) * inv_freq.astype(np.float32)).astype(x.dtype)
            cos, sin = np.cos(angle), np.sin(angle)
            first, second = ((slice(0, None, 2), slice(1, None, 2)) if interleaved
                             else (slice(0, half), slice(half, None)))
            a, b = x[t, :, first], x[t, :, second]
            out[t, :, first] = a * cos - b * sin
            out[t, :, second] = b * cos + a * sin
        return out

    def examples(self) -> list[Example]:
        def layout_of(interleaved: bool) -> str:
            return "interleaved" if interleaved else "half"

        def at(name: str, positions: list[int], interleaved: bool) -> Example:
            return Example(f"{name}_{layout_of(interleaved)}", lambda r: {
                "x": r.normal(len(positions), 2, 64), "positions": np.array(positions, np.int32),
                "inv_freq": 500000.0 ** (-np.arange(0, 64, 2) / 64)}, {"interleaved": interleaved})

        def rotate(t: int, heads: int, d: int, interleaved: bool, longest: int = 2048,
                   theta: float = 10000.0) -> Example:
            def make(r: ExampleInputs) -> dict[str, Array | None]:
                return {"x": r.normal(t, heads, d), "positions": r.ints(0, longest, t),
                        "inv_freq": theta ** (-np.arange(0, d, 2) / d)}
            layout = layout_of(interleaved)
            return Example(f"T{t}_H{heads}_d{d}_p{longest}_{layout}", make,
                          {"interleaved": interleaved})
        return [rotate(t, h, d, i) for i in (False, True)
                for t, h, d in ((0, 2, 8), (1, 32, 64), (2, 3, 80), (17, 8, 128), (512, 4, 64))
                ] + [rotate(3, 2, 64, False, 131072, 500000.0), rotate(1, 1, 2, True),
                     rotate(LONGEST_T, 2, 64, False, LONGEST_T),
                     *(rotate(3, *each, False, 32768, 1e6) for each in HEADS),
                     *(at(name, positions, i) for i in (False, True) for name, positions in (
                         ("from_0", [*range(17)]), ("far", [131071, 65536, 100001])))]

    def error_examples(self) -> list[ErrorExample]:
        x, positions = spec("f32[2,4,8]"), spec("i32[2]")
        freq = spec("f32[4]")
        return [ErrorExample({"x": x, "positions": positions, "inv_freq": spec("f32[8]")}, {},
                            ShapeError, "inv_freq"),
                ErrorExample({"x": x, "positions": spec("i32[3]"), "inv_freq": freq}, {},
                             ShapeError, "positions"),
                ErrorExample({"x": spec("f32[2,4,7]"), "positions": positions,
                             "inv_freq": spec("f32[3]")}, {}, ShapeError, "even"),
                ErrorExample({"x": x, "positions": positions, "inv_freq": freq},
                            {"interleaved": "yes"}, OpError, "interleaved")]
