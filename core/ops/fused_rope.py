"""Defines rope_kv_write, which rotates queries and keys and stores keys and values."""

from typing import Any, ClassVar

from core.errors import ShapeError
from core.ir.examples import ErrorExample, Example, spec, uniform
from core.ir.fusion import FusedOp
from core.ir.op import Attr
from core.ir.tolerance import Tolerance
from core.ops.published import LONGEST_T, PUBLISHED


class RopeKvWrite(FusedOp):
    """Rotate queries and keys; store the rotated keys, and the values, in the cache."""

    name = "rope_kv_write"
    signature = ("q A[T,H,d], k A[T,Hkv,d], v A[T,Hkv,d], positions i32[T], inv_freq f32[d/2], "
                 "cache C[2,NB,BS,Hkv,d], slots i32[T] -> cache, out A[T,H,d]")
    attributes: ClassVar = {"interleaved": Attr(bool, False)}
    dtype_cases = (*uniform("A", "C"), {"A": "f32", "C": "bf16"}, {"A": "f32", "C": "f16"})
    tolerance = Tolerance(4, 4, "as rope; values are copied")

    def compose(self, g: Any, q: Any, k: Any, v: Any, positions: Any, inv_freq: Any,  # noqa: ANN401
                cache: Any, slots: Any, *, interleaved: Any) -> Any:  # noqa: ANN401
        q = g.add("rope", q, positions, inv_freq, interleaved=interleaved)
        k = g.add("rope", k, positions, inv_freq, interleaved=interleaved)
        cache, _ = g.add("kv_cache_write", k, v, cache, None, slots)
        return cache, q

    def examples(self) -> list[Example]:
        def make(r: Any, t: int, heads: int, kv_heads: int, d: int) -> Any:  # noqa: ANN401
            blocks = -(-max(t, 1) // 16) + 1
            slots = r.rng.permutation(blocks * 16)[:t].astype("int32")
            slots[t // 2:t // 2 + 1] = -1 if t > 1 else slots[:1]
            return {"q": r.normal(t, heads, d), "k": r.normal(t, kv_heads, d),
                    "v": r.normal(t, kv_heads, d), "positions": r.ints(0, 131072, t),
                    "inv_freq": 10000.0 ** (-r.ints(0, d, d // 2) / d),
                    "cache": r.normal(2, blocks, 16, kv_heads, d), "slots": slots}
        heads = [(3, p.heads, p.kv_heads, p.head_dim) for p in PUBLISHED]
        return [Example(f"T{t}_H{h}_{n}_d{d}_{i}",
                       lambda r, t=t, h=h, n=n, d=d: make(r, t, h, n, d),  # type: ignore[misc]
                       {"interleaved": i}) for i in (False, True)
                for t, h, n, d in ((0, 2, 1, 8), (1, 32, 4, 64), (2, 3, 1, 80), (17, 8, 8, 128),
                                   (LONGEST_T, 2, 1, 64), *heads)]

    def error_examples(self) -> list[ErrorExample]:
        q, cache, t = spec("f32[2,4,8]"), spec("f32[2,3,16,4,8]"), spec("i32[2]")
        good = {"q": q, "k": q, "v": q, "positions": t, "inv_freq": spec("f32[4]"), "cache": cache,
                "slots": t}
        return [ErrorExample({**good, "inv_freq": spec("f32[8]")}, {}, ShapeError, "inv_freq")]
