"""State the properties of attention over a paged cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from core.conformance.cases import Case
from core.conformance.properties.subject import Arrays, Draws, Subject
from core.ir.examples import ExampleInputs
from core.tensor.tensor import Array

BLOCK = 16  # tokens in a block of the cache


@dataclass(frozen=True)
class _Batch:
    """Hold sequences by (new tokens, all tokens), their queries, and keys and values by
    position."""

    seqs: list[tuple[int, int]]
    q: list[Array]
    kv: list[Array]  # [2, length, Hkv, d] each
    scales: list[Array] | None
    scale: float

    def arrays(self, chosen: Sequence[int], rng: np.random.Generator | None = None) -> Arrays:
        """Return the op's inputs for these sequences in this order. The blocks are in order, or by
        `rng` in a random one, among others that hold large numbers which nothing may read."""
        counts = [-(-self.seqs[s][1] // BLOCK) for s in chosen]
        used = sum(counts)
        order = np.arange(used + 3) if rng is None else rng.permutation(used + 3)
        table = np.full((len(chosen), max([1, *counts])), -1, np.int32)
        shape = (2, used + 3, BLOCK, *self.kv[0].shape[2:])
        cache = np.full(shape, 100, self.kv[0].dtype)
        scales = np.full(shape[:-1], 100.0) if self.scales is not None else None
        for row, s in enumerate(chosen):
            start = sum(counts[:row])
            table[row, :counts[row]] = order[start:start + counts[row]]
            place = np.arange(self.seqs[s][1])
            where = table[row, place // BLOCK], place % BLOCK
            cache[:, where[0], where[1]] = self.kv[s]
            if scales is not None and self.scales is not None:
                scales[:, where[0], where[1]] = self.scales[s]
        starts = np.cumsum([0, *(len(self.q[s]) for s in chosen)]).astype(np.int32)
        return {"q": np.concatenate([self.q[s] for s in chosen]), "cache": cache,
                "cache_scales": scales, "block_table": table, "query_starts": starts,
                "seq_lens": np.array([self.seqs[s][1] for s in chosen], np.int32)}


def _batch(subject: Subject, draws: Draws, sequences: int, news: Sequence[int]) -> _Batch:
    kv_heads, group = draws.choice((1, 2)), draws.choice((1, 2, 4))
    size = draws.choice((64, 16, 128, 80))
    seqs = []
    for _ in range(sequences):
        new = draws.choice(news)
        seqs.append((new, new + draws.integer(0, 40)))
    r = ExampleInputs(np.random.default_rng(draws.integer(0, 2**32 - 1)))
    quantized = subject.dtypes["C"].short == "i8"
    kv = [(r.codes(8, 2 * n, kv_heads * size) if quantized else r.normal(2 * n, kv_heads * size)
           ).reshape(2, n, kv_heads, size) for _, n in seqs]
    scales = [(abs(r.normal(2, n, kv_heads)) + 0.1) / 64 for _, n in seqs] if quantized else None
    return _Batch(seqs, [r.normal(n, group * kv_heads, size) for n, _ in seqs], kv, scales,
                  size**-0.5)


_NEWS = (1, 0, 3, 17)


def _attend(subject: Subject, arrays: Arrays, scale: float) -> tuple[Case, Array]:
    case = subject.case(arrays, {"scale": scale})
    out = subject.run(case)["out"]
    assert out is not None  # attention has no optional result
    return case, out


def permuting_sequences(subject: Subject, draws: Draws) -> None:
    batch = _batch(subject, draws, draws.integer(2, 4), _NEWS)
    order = draws.choice((tuple(reversed(range(len(batch.q)))),
                          (*range(1, len(batch.q)), 0)))
    _, out = _attend(subject, batch.arrays(range(len(batch.q))), batch.scale)
    parts = np.split(out, np.cumsum([len(q) for q in batch.q])[:-1])
    case, moved = _attend(subject, batch.arrays(order), batch.scale)
    subject.agree(case, {"out": moved}, {"out": np.concatenate([parts[s] for s in order])},
                  bits=subject.kernel.batch_invariant)


def sequences_alone(subject: Subject, draws: Draws) -> None:
    batch = _batch(subject, draws, draws.integer(2, 4), _NEWS)
    _, out = _attend(subject, batch.arrays(range(len(batch.q))), batch.scale)
    parts = np.split(out, np.cumsum([len(q) for q in batch.q])[:-1])
    for s, part in enumerate(parts):
        case, alone = _attend(subject, batch.arrays([s]), batch.scale)
        subject.agree(case, {"out": alone}, {"out": part}, bits=subject.kernel.batch_invariant)


def splitting_a_prefill(subject: Subject, draws: Draws) -> None:
    batch = _batch(subject, draws, 1, (17, 2, 5, 40))
    (new, length), cut = batch.seqs[0], draws.integer(1, batch.seqs[0][0] - 1)
    case, whole = _attend(subject, batch.arrays([0]), batch.scale)
    early = replace(batch, seqs=[(cut, length - new + cut)], q=[batch.q[0][:cut]],
                    kv=[batch.kv[0][:, :length - new + cut]],
                    scales=batch.scales and [batch.scales[0][:, :length - new + cut]])
    late = replace(batch, seqs=[(new - cut, length)], q=[batch.q[0][cut:]])
    parts = [_attend(subject, part.arrays([0]), batch.scale)[1] for part in (early, late)]
    subject.agree(case, {"out": np.concatenate(parts)}, {"out": whole},
                  bits=subject.kernel.batch_invariant)


def paging(subject: Subject, draws: Draws) -> None:
    batch = _batch(subject, draws, draws.integer(1, 3), _NEWS)
    everyone = range(len(batch.q))
    _, whole = _attend(subject, batch.arrays(everyone), batch.scale)
    rng = np.random.default_rng(draws.integer(0, 2**32 - 1))
    case, paged = _attend(subject, batch.arrays(everyone, rng), batch.scale)
    subject.agree(case, {"out": paged}, {"out": whole})


def shifting_scores(subject: Subject, draws: Draws) -> None:
    """Check that a number added to each key, which adds a constant to a query's scores, changes
    nothing. All are in eighths, so that no score is rounded; the constant is up to 240, where
    float32's exp ends at 88."""
    batch = _batch(subject, draws, draws.integer(1, 3), _NEWS)
    rng = np.random.default_rng(draws.integer(0, 2**32 - 1))

    def eighths(like: Array) -> Array:
        drawn: Array = rng.integers(-8, 9, like.shape, np.int8)
        return drawn
    q, codes = [eighths(a) / 8 for a in batch.q], [eighths(a) for a in batch.kv]
    for queries in q:
        queries[..., 0] = 16

    def attend(shift: int) -> tuple[Case, Array]:
        for kv in codes:
            kv[0, ..., 0] = 8 * shift
        quantized = batch.scales is not None
        moved = replace(batch, q=q, kv=codes if quantized else [kv / 8 for kv in codes],
                        scales=[np.full(kv.shape[:-1], 1 / 8) for kv in codes]
                        if quantized else None)
        return _attend(subject, moved.arrays(range(len(q))), 1.0)
    _, plain = attend(0)
    case, found = attend(draws.choice((15, -15, 2, -2)))
    subject.agree(case, {"out": found}, {"out": plain})
