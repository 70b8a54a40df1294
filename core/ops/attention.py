"""Define kv_cache_write and attention over a paged cache, for a ragged batch of sequences.

The cache of one layer is [2, NB, BS, Hkv, d]: keys and values, NB blocks of BS tokens. A token's
slot is block * BS + offset. Sequence s owns the blocks block_table[s]; its token at position p is
in block_table[s, p // BS] at p % BS (Kwon et al. 2023, https://arxiv.org/abs/2309.06180). An i8
cache comes with one f32 scale for each (keys or values, slot, head): value = scale * code.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from core.errors import DtypeError, OpError, ShapeError
from core.ir.examples import ErrorExample, Example, ExampleInputs, spec
from core.ir.op import Attr, Attrs, Cost, Env, Op, Specs, divisible, need
from core.ir.tolerance import Tolerance
from core.ops.attention_examples import attention_examples
from core.ops.published import LONGEST_T, PUBLISHED
from core.tensor.tensor import Array

_CACHES = tuple({"A": a, "C": c} for a, c in (
    ("f32", "f32"), ("f16", "f16"), ("bf16", "bf16"), ("f32", "f16"), ("f32", "bf16"),
    ("f32", "i8"), ("f16", "i8"), ("bf16", "i8")))


def _check_scales(op: str, env: Env) -> None:
    quantized = env.dtypes["C"].short == "i8"
    need(env.dtypes["C"].is_float or quantized,
         f"{op}: the cache is {env.dtypes['C']}, expected f32, f16, bf16 or i8", DtypeError)


def quantize_rows(x: Array) -> tuple[Array, Array]:
    """Quantise to symmetric int8 along the last axis: (codes, scales); scale = max|x| / 127, or 1
    for zeros."""
    peak = np.max(np.abs(x), axis=-1)
    scales = np.where(peak > 0, peak / 127, 1).astype(np.float32)
    return np.rint(x / scales[..., None]).clip(-127, 127).astype(np.int8), scales


def _context(cache: Array, scales: Array | None, blocks: Array, length: int,
             dtype: np.dtype[Any]) -> Array:
    """Return the keys and values [2, length, Hkv, d] of the sequence that owns `blocks`."""
    place = np.arange(length)
    where = blocks[place // cache.shape[2]], place % cache.shape[2]
    kv = cache[:, where[0], where[1]].astype(dtype)
    return kv if scales is None else kv * scales[:, where[0], where[1]][..., None]


class KvCacheWrite(Op):
    """Stores cache[0, slot[t]] = k[t], cache[1, slot[t]] = v[t]; a negative slot stores nothing."""

    name = "kv_cache_write"
    signature = ("k A[T,Hkv,d], v A[T,Hkv,d], cache C[2,NB,BS,Hkv,d], "
                 "cache_scales f32[2,NB,BS,Hkv]?, slots i32[T] -> cache, cache_scales")
    dtype_cases = _CACHES
    tolerance = Tolerance(0, 0, "a copy, or one correctly rounded conversion", exact=True)

    def check(self, env: Env, attrs: Attrs) -> None:
        _check_scales(self.name, env)

    def reference(self, k: Array, v: Array, cache: Array, cache_scales: Array | None,
                  slots: Array) -> tuple[Array, Array | None]:
        heads, size = k.shape[1:]
        flat = cache.reshape(2, -1, heads, size)
        for t, slot in enumerate(slots):
            for side, row in enumerate((k[t], v[t])):
                if slot >= 0 and cache_scales is not None:
                    codes, scales = quantize_rows(row.astype(np.float32))
                    flat[side, slot] = codes
                    cache_scales.reshape(2, -1, heads)[side, slot] = scales
                elif slot >= 0:
                    flat[side, slot] = row
        return cache, cache_scales

    def writes(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        slots, (blocks, size) = inputs["slots"], inputs["cache"].shape[1:3]
        stored = slots[(slots >= 0) & (slots < blocks * size)]
        return dict.fromkeys(self.sig.mutated, (slice(None), stored // size, stored % size))

    def cost(self, inputs: Specs, attrs: Attrs) -> Cost:
        k, cache, slots = inputs["k"], inputs["cache"], inputs["slots"]
        assert k is not None and cache is not None and slots is not None  # bound by the signature
        elements = 2 * k.nbytes // k.dtype.itemsize
        return Cost(0, 2 * k.nbytes + elements * cache.dtype.itemsize + slots.nbytes)

    def examples(self) -> list[Example]:
        def write(t: int, heads: int, d: int, quantized: bool, context: int = 0) -> Example:
            def make(r: ExampleInputs) -> dict[str, Array | None]:
                blocks = -(-max(t, context, 1) // 16) + 2
                slots = r.rng.permutation(blocks * 16)[:t].astype(np.int32)
                slots[t // 2:t // 2 + 1] = -1 if t > 1 else slots[:1]
                cache = (r.codes(8, 2 * blocks * 16, heads * d) if quantized
                         else r.normal(2 * blocks * 16, heads * d))
                scales = abs(r.normal(2, blocks, 16, heads)) if quantized else None
                return {"k": r.normal(t, heads, d), "v": r.normal(t, heads, d),
                        "cache": cache.reshape(2, blocks, 16, heads, d),
                        "cache_scales": scales, "slots": slots}
            return Example(f"T{t}_H{heads}_d{d}" + (f"_to{context}" if context else ""), make, {},
                          only={"C": "i8" if quantized else "f32 f16 bf16"})
        heads = sorted({(p.kv_heads, p.head_dim) for p in PUBLISHED} - {(4, 64)})
        return [write(*shape, q) for q in (False, True)
                for shape in ((0, 2, 8), (1, 4, 64), (2, 1, 80), (17, 8, 128),
                              *((3, *each) for each in heads), (LONGEST_T, 1, 64))
                ] + [write(2, 1, 8, q, max(p.context for p in PUBLISHED)) for q in (False, True)]

    def error_examples(self) -> list[ErrorExample]:
        k, cache, slots = spec("f32[2,4,8]"), spec("f32[2,3,16,4,8]"), spec("i32[2]")
        return [ErrorExample({"k": k, "v": spec("f32[2,4,6]"), "cache": cache, "slots": slots}, {},
                            ShapeError, "`v`"),
                ErrorExample({"k": k, "v": k, "cache": spec("i32[2,3,16,4,8]"), "slots": slots}, {},
                            DtypeError, "cache"),
                ErrorExample({"k": k, "v": k, "cache": cache, "slots": spec("i32[3]")}, {},
                            ShapeError, "slots")]


class Attention(Op):
    """Computes causal attention of query token i of sequence s over the first positions of s, up to
    its own.

    Queries of s are rows query_starts[s]..query_starts[s+1]-1 of q; they are the last ones of its
    seq_lens[s] tokens. Query head h reads key/value head h // (H / Hkv). A sequence of length 0
    gives zeros. out = softmax(q·k * scale) @ v.
    """

    name = "attention"
    signature = ("q A[T,H,d], cache C[2,NB,BS,Hkv,d], cache_scales f32[2,NB,BS,Hkv]?, "
                 "block_table i32[S,B], query_starts i32[S+1], seq_lens i32[S] -> out A[T,H,d]")
    attributes: ClassVar = {"scale": Attr(float)}
    independent_rows = False
    dtype_cases = _CACHES
    tolerance = Tolerance(8, 4, "two sums in any order with exp between them; online softmax "
                          "rescales its partial sums, one more rounding a tile; tensor cores take "
                          "probabilities rounded to 16 bits", roundings=1.5)

    def check(self, env: Env, attrs: Attrs) -> None:
        _check_scales(self.name, env)
        heads, kv_heads = env.dims["H"], env.dims["Hkv"]
        need(divisible(heads, kv_heads), f"attention: {heads} query heads cannot share {kv_heads} "
             "key/value heads; expected a multiple", ShapeError)

    def check_values(self, inputs: Mapping[str, Any]) -> None:
        table, starts, lens = (inputs[n] for n in ("block_table", "query_starts", "seq_lens"))
        blocks, size = inputs["cache"].shape[1:3]
        counts = np.diff(starts)
        need(starts[0] == 0 and starts[-1] == len(inputs["q"]) and bool((counts >= 0).all()),
             f"attention: query_starts {starts.tolist()} must rise from 0 to {len(inputs['q'])}")
        need(bool(((lens == 0) | (lens >= counts)).all()) and bool((lens >= 0).all()),
             f"attention: seq_lens {lens.tolist()} must be 0 or at least the queries' number "
             f"{counts.tolist()}")
        for s, length in enumerate(lens):
            used = table[s, :-(-int(length) // size)]
            need(length <= table.shape[1] * size and bool(((used >= 0) & (used < blocks)).all()),
                 f"attention: sequence {s} of length {length} has blocks {used.tolist()}, expected "
                 f"{-(-int(length) // size)} of 0 to {blocks - 1}")

    def condition(self, inputs: Mapping[str, Any], attrs: Attrs) -> float:
        """Return the largest |score|: exp turns a score's relative error into |score| times as
        much."""
        q, cache, cache_scales, table, _, lens = inputs.values()
        group, largest = q.shape[1] // cache.shape[3], 1.0
        for s, length in enumerate(lens):
            keys = _context(cache, cache_scales, table[s], length, q.dtype)[0]
            heads = np.repeat(keys, group, axis=1)  # [length, H, d]
            rows = q[inputs["query_starts"][s]:inputs["query_starts"][s + 1]]
            scores = np.einsum("thd,lhd->thl", rows, heads) * attrs["scale"]
            largest = max(largest, float(np.abs(scores).max(initial=0.0)))
        return largest

    def reference(self, q: Array, cache: Array, cache_scales: Array | None, block_table: Array,
                  query_starts: Array, seq_lens: Array, *, scale: float) -> Array:
        out = np.zeros_like(q)
        group = q.shape[1] // cache.shape[3]
        for s, length in enumerate(seq_lens):
            start, stop = query_starts[s], query_starts[s + 1]
            kv = _context(cache, cache_scales, block_table[s], length, q.dtype)
            for t in range(start, stop if length else start):
                seen = length - (stop - start) + (t - start) + 1
                for h in range(q.shape[1]):
                    k, v = kv[:, :seen, h // group]
                    score = k @ q[t, h] * q.dtype.type(scale)
                    weight = np.exp(score - score.max())
                    out[t, h] = weight / weight.sum() @ v
        return out

    def cost(self, inputs: Specs, attrs: Attrs) -> Cost:
        """Counts the whole of every block table: lengths are data, which specs do not hold."""
        q, cache, table = inputs["q"], inputs["cache"], inputs["block_table"]
        assert q is not None and cache is not None and table is not None  # bound by the signature
        tokens = int(table.shape[1]) * int(cache.shape[2])
        row = int(cache.shape[3]) * int(cache.shape[4]) * cache.dtype.itemsize
        elements = q.nbytes // q.dtype.itemsize
        return Cost(4 * elements * tokens, 2 * q.nbytes + 2 * int(table.shape[0]) * tokens * row)

    def examples(self) -> list[Example]:
        return attention_examples()

    def error_examples(self) -> list[ErrorExample]:
        good = {"q": spec("f32[3,4,8]"), "cache": spec("f32[2,5,16,2,8]"),
                "block_table": spec("i32[2,3]"), "query_starts": spec("i32[3]"),
                "seq_lens": spec("i32[2]")}
        scale = {"scale": 0.5}
        return [ErrorExample({**good, "q": spec("f32[3,5,8]")}, scale, ShapeError, "multiple"),
                ErrorExample({**good, "q": spec("f32[3,4,6]")}, scale, ShapeError, "cache"),
                ErrorExample({**good, "query_starts": spec("i32[2]")}, scale, ShapeError,
                            "query_starts"),
                ErrorExample(good, {}, OpError, "scale")]
