"""Make examples of attention: batches of sequences with caches in blocks."""

from __future__ import annotations

import numpy as np

from core.ir.examples import Example, ExampleInputs
from core.ops.published import LONGEST_T, PUBLISHED
from core.tensor.tensor import Array

Sequences = list[tuple[int, int]]  #: (queries, length) of each
Shape = tuple[str, int, int, int, Sequences, bool]  #: name, H, Hkv, d, sequences, contiguous blocks

SHAPES: tuple[Shape, ...] = (
    ("decode", 8, 2, 64, [(1, 37)], True), ("decode_long", 4, 1, 64, [(1, 1500)], True),
    ("decode_paged", 4, 4, 80, [(1, 50)], False), ("prefill", 4, 2, 128, [(17, 17)], True),
    ("chunk", 6, 2, 64, [(16, 49)], False), ("one_token", 2, 2, 8, [(1, 1)], True),
    ("prefill_512", 2, 1, 64, [(512, 512)], True), ("empty", 2, 1, 64, [], True),
    ("odd_head", 3, 1, 33, [(2, 21)], False), ("idle_row", 2, 1, 16, [(1, 5), (1, 0)], False),
    ("ragged", 4, 2, 64, [(1, 33), (5, 5), (17, 40), (1, 1)], False),
    # sequences of a step that bring no token, behind and between those that do
    ("mixed", 4, 2, 64, [(2, 11), (0, 5)], False),
    ("mixed_between", 4, 1, 32, [(1, 40), (0, 7), (4, 20)], False),
    # a step of many sequences, each longer than the last; a part of a prompt behind its beginning
    ("decode_S130", 2, 1, 16, [(1, 1 + s // 3) for s in range(130)], False),
    ("chunk_100_at_200", 2, 1, 32, [(100, 300)], False))

# each number of query heads that share a key, with each head size: at, before and behind a block's
# border and a longer one of kernels, by decode steps and a part of a prompt
GROUPS = ((1, 256), (2, 96), (3, 192), (4, 112), (5, 160), (6, 80), (7, 64), (7, 128), (8, 64),
          (16, 128))
LENGTHS: Sequences = [(1, 15), (1, 16), (1, 17), (1, 128), (1, 129), (3, 70), (1, 300)]
# a step in which some decode and others compute parts of prompts, around the borders of kernels
STEP: Sequences = [(1, 300), (130, 200), (63, 63), (1, 0), (64, 80), (0, 7), (2, 90), (1, 15)]
# few queries of long contexts: beyond the borders of kernels, and 2,000, 4,096 and 32,768 tokens
LONG: tuple[tuple[int, int, int, Sequences], ...] = (
    (14, 2, 64, [(1, 2048), (2, 2500)]), (4, 1, 128, [(1, 4096)]), (2, 1, 256, [(1, 2049)]),
    (1, 1, 64, [(1, 32768)]))


def attention_examples() -> list[Example]:
    """Return odd batches; the published models' heads, short; every group and head size; long
    contexts; `large` ones at the published models' longest."""
    shapes = list(SHAPES)
    for heads, kv_heads, d in sorted({(p.heads, p.kv_heads, p.head_dim) for p in PUBLISHED}):
        shapes.append((f"H{heads}_{kv_heads}_d{d}", heads, kv_heads, d, [(1, 37), (9, 23)], False))
    shapes += [(f"group{group}_d{d}", group, 1, d, LENGTHS, False) for group, d in GROUPS]
    shapes += [(f"H{h}_{n}_d{d}_to{seqs[-1][1]}", h, n, d, seqs, False) for h, n, d, seqs in LONG]
    shapes += [(f"step_d{d}", 8, 2, d, STEP, False) for d in (64, 128)]
    shapes += [("prefill_100", 2, 1, 64, [(100, 100)], True),
               (f"T{LONGEST_T}_short", 1, 1, 64, [(64, 64)] * (LONGEST_T // 64), False)]
    large = [(f"H{p.heads}_{p.kv_heads}_d{p.head_dim}_to{p.context}", p.heads, p.kv_heads,
              p.head_dim, [(1, p.context)], False) for p in PUBLISHED]
    large.append((f"T{LONGEST_T}", 2, 1, 64, [(LONGEST_T, LONGEST_T)], True))
    return [_example(*shape, quantized, shape in large) for quantized in (False, True)
            for shape in shapes + large]


def _example(name: str, heads: int, kv_heads: int, d: int, seqs: Sequences, contiguous: bool,
             quantized: bool, large: bool) -> Example:
    def make(r: ExampleInputs) -> dict[str, Array | None]:
        counts = [-(-length // 16) for _, length in seqs]
        used, width = sum(counts), max([1, *counts])
        order = np.arange(used + 2) if contiguous else r.rng.permutation(used + 2)
        table = np.full((len(seqs), width), -1, np.int32)
        for s, count in enumerate(counts):
            table[s, :count] = order[sum(counts[:s]):sum(counts[:s]) + count]
        cache = (r.codes(8, 2 * (used + 2) * 16, kv_heads * d) if quantized
                 else r.normal(2 * (used + 2) * 16, kv_heads * d))
        starts = np.cumsum([0, *(n for n, _ in seqs)]).astype(np.int32)
        return {"q": r.normal(int(starts[-1]), heads, d),
                "cache": cache.reshape(2, used + 2, 16, kv_heads, d),
                "cache_scales": (abs(r.normal(2, used + 2, 16, kv_heads)) + 0.1) / 64
                if quantized else None,
                "block_table": table, "query_starts": starts,
                "seq_lens": np.array([n for _, n in seqs], np.int32)}
    return Example(name, make, {"scale": d**-0.5}, large,
                   only={"C": "i8" if quantized else "f32 f16 bf16"})
