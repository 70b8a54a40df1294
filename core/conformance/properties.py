"""What must hold between two runs of one kernel, whatever the numbers: properties of the ops.

The matrix compares with the definition, at the shapes that its samples have. These compare a kernel
with itself, at shapes drawn for each example, and follow from the ops' contracts alone. Where a
kernel declares `batch_invariant` the rows must have equal bits; else both runs may err, so twice
the op's tolerance is allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Protocol, TypeVar

import numpy as np

from core.backend import Kernel
from core.compare import Expected, Tolerance, compare
from core.conformance.cases import Case, dtype_id, samples_of
from core.dispatch import run_kernel, run_reference
from core.dtype import DType
from core.errors import NoKernelError
from core.op import OPS, Op
from core.ops.quantized import expand_weight
from core.registry import Registry
from core.samples import Draw, Sample
from core.tensor import Array

T = TypeVar("T")
Arrays = dict[str, Array | None]
SMALL = 1 << 18  # elements of a sample that an example may use
BLOCK = 16  # tokens in a block of the cache


class Draws(Protocol):
    """Where an example's choices come from: hypothesis, which shrinks what fails, or a test."""

    def integer(self, low: int, high: int) -> int: ...

    def choice(self, options: Sequence[T]) -> T: ...


class Refused(Exception):
    """The kernel does not take this example: it shows nothing."""


@dataclass(frozen=True)
class Subject:
    """One kernel with one set of dtypes."""

    registry: Registry
    kernel: Kernel
    dtypes: Mapping[str, DType]

    @property
    def op(self) -> Op:
        return OPS[self.kernel.op]

    def case(self, arrays: Mapping[str, Array | None], attrs: Mapping[str, Any]) -> Case:
        """A case with these inputs, floats rounded to the subject's dtypes."""
        sample = Sample("example", lambda r: dict(arrays), dict(attrs))
        return Case(self.op, self.kernel.backend, self.dtypes, sample)

    def run(self, case: Case) -> Arrays:
        """The kernel's results by name. Raises Refused."""
        reason = self.kernel.refuses(case.call)
        if reason is not None:
            raise Refused(reason)
        results = run_kernel(self.op, case.arrays, case.attrs, backend=self.kernel.backend,
                             kernel=self.kernel.name, registry=self.registry)
        return dict(zip(self.op.result_names, results, strict=True))

    def agree(self, case: Case, found: Arrays, wanted: Mapping[str, Array | None], *,
              bits: bool = False) -> None:
        """Raise AssertionError unless `found`, the results of `case`, are the wanted ones."""
        for name, want in wanted.items():
            got = found[name]
            if want is None or got is None:
                assert got is want, f"`{name}` is there in one of two runs only"
            elif bits:
                assert got.tobytes() == want.tobytes(), \
                    f"`{name}` has other bits: {_differing(got, want)}"
            else:
                said = compare(got, _around(case.expected[name], want), self._twice())
                assert said.ok, f"`{name}`: {said}"

    def _twice(self) -> Tolerance:
        one = self.kernel.tolerance or self.op.tolerance
        return replace(one, factor=2 * one.factor, ulps=2 * one.ulps, roundings=2 * one.roundings)


@dataclass(frozen=True)
class Property:
    """`check` raises AssertionError where the property does not hold for a drawn example."""

    name: str
    says: str
    applies: Callable[[Op], bool]
    check: Callable[[Subject, Draws], None]


def _differing(got: Array, want: Array) -> str:
    if got.shape != want.shape or got.dtype != want.dtype:
        return f"{got.dtype}{list(got.shape)} and {want.dtype}{list(want.shape)}"
    at = np.argwhere(np.atleast_1d(got.view(f"u{got.itemsize}") != want.view(f"u{got.itemsize}")))
    return f"{len(at)} of {got.size} elements, first at {at[0].tolist()}"


def _around(expected: Expected, value: Array) -> Expected:
    """What was expected, moved so that `value` is exact and the same errors are allowed."""
    exact = value.astype(np.float64) if value.dtype.kind not in "iu" else value
    if not expected.dtype.is_float:
        return replace(expected, exact=exact)
    with np.errstate(invalid="ignore", over="ignore"):
        off = (np.nan_to_num(v.astype(np.float64) - expected.exact)
               for v in (expected.single, expected.stored))
        single, stored = (exact + o for o in off)
    return replace(expected, exact=exact, single=single,
                   stored=stored.astype(expected.dtype.numpy))


# rows: every op whose rows are independent

def _axis(op: Op) -> str | None:
    """The dimension that counts independent rows: tokens, else sequences, else none."""
    if not op.independent_rows:
        return None
    first = {p.dims[0] for p in op.sig.params if p.dims}
    return "T" if "T" in first else "S" if "S" in first else None


def _rows(op: Op, arrays: Arrays, rows: Array) -> Arrays:
    """The inputs with only these rows, in this order."""
    names = {p.name for p in op.sig.params if p.dims[:1] == (_axis(op),)}
    return {k: a[rows] if k in names and a is not None else a for k, a in arrays.items()}


def _split_results(op: Op, results: Arrays) -> tuple[Arrays, Arrays]:
    """(those with a row for each row of the inputs, those such as caches that have none)."""
    shapes = {p.name: p for p in (*op.sig.params, *op.sig.outputs)}
    by_row = {k for k in results if shapes[k].dims[:1] == (_axis(op),)}
    return ({k: a for k, a in results.items() if k in by_row},
            {k: a for k, a in results.items() if k not in by_row})


@cache
def _small(op: Op, cell: str, pairs: tuple[tuple[str, DType], ...]) -> tuple[Sample, ...]:
    """Samples with at least two rows that run in about a millisecond."""
    found = []
    for sample in samples_of(op, dict(pairs)):
        made = Case(op, "none", dict(pairs), sample).arrays
        rows = max((made[p.name].shape[0] for p in op.sig.params  # type: ignore[union-attr]
                    if p.dims[:1] == (_axis(op),) and made[p.name] is not None), default=0)
        if rows > 1 and sum(a.size for a in made.values() if a is not None) <= SMALL:
            found.append(sample)
    return tuple(found)


def _row_example(subject: Subject, draws: Draws) -> tuple[Arrays, dict[str, Any], int,
                                                          np.random.Generator]:
    """(inputs, attributes, number of rows, numbers to choose rows by) from one of the op's samples,
    with new values."""
    op = subject.op
    samples = _small(op, dtype_id(subject.dtypes), tuple(subject.dtypes.items()))
    if not samples:
        raise Refused(f"{op.name} has no sample with several rows")
    sample = draws.choice(samples)
    rng = np.random.default_rng(draws.integer(0, 2**32 - 1))
    arrays = sample.make(Draw(rng))
    rows = next(len(a) for p in op.sig.params if p.dims[:1] == (_axis(op),)
                and (a := arrays.get(p.name)) is not None)
    taken = min(rows, draws.choice((rows, 2, 5)))  # some kernels are for a few rows
    every = {p.name: arrays.get(p.name) for p in op.sig.params}
    return _rows(op, every, np.arange(taken)), sample.attrs, taken, rng


def _permuting_rows(subject: Subject, draws: Draws) -> None:
    arrays, attrs, rows, rng = _row_example(subject, draws)
    order = rng.permutation(rows)
    whole = subject.run(subject.case(arrays, attrs))
    moved = subject.case(_rows(subject.op, arrays, order), attrs)
    by_row, rest = _split_results(subject.op, whole)
    wanted = {k: None if a is None else a[order] for k, a in by_row.items()}
    subject.agree(moved, subject.run(moved), {**wanted, **rest},
                  bits=subject.kernel.batch_invariant)


def _rows_alone(subject: Subject, draws: Draws) -> None:
    arrays, attrs, rows, rng = _row_example(subject, draws)
    taken = np.sort(rng.permutation(rows)[:draws.choice((1, 1, 2, max(1, rows // 2)))])
    by_row, _ = _split_results(subject.op, subject.run(subject.case(arrays, attrs)))
    alone = subject.case(_rows(subject.op, arrays, taken), attrs)
    wanted = {k: None if a is None else a[taken] for k, a in by_row.items()}
    subject.agree(alone, subject.run(alone), wanted, bits=subject.kernel.batch_invariant)


def _splitting_rows(subject: Subject, draws: Draws) -> None:
    """Two steps, the second on the state that the first left, against one."""
    arrays, attrs, rows, _ = _row_example(subject, draws)
    cut = draws.integer(1, rows - 1)
    case = subject.case(arrays, attrs)
    whole = subject.run(case)
    first = subject.run(subject.case(_rows(subject.op, arrays, np.arange(cut)), attrs))
    rows_first, state = _split_results(subject.op, first)
    second = subject.run(subject.case(
        {**_rows(subject.op, arrays, np.arange(cut, rows)), **state}, attrs))
    rows_second, state = _split_results(subject.op, second)
    joined = {k: None if a is None or (b := rows_second[k]) is None else np.concatenate([a, b])
              for k, a in rows_first.items()}
    subject.agree(case, {**joined, **state}, whole, bits=subject.kernel.batch_invariant)


# attention

@dataclass(frozen=True)
class _Batch:
    """Sequences by (new tokens, all tokens), their queries, and keys and values by position."""

    seqs: list[tuple[int, int]]
    q: list[Array]
    kv: list[Array]  # [2, length, Hkv, d] each
    scales: list[Array] | None
    scale: float

    def arrays(self, chosen: Sequence[int], rng: np.random.Generator | None = None) -> Arrays:
        """Inputs of the op for these sequences in this order, over blocks in order, or by `rng` in
        a random one, among others that hold large numbers which nothing may read."""
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
    r = Draw(np.random.default_rng(draws.integer(0, 2**32 - 1)))
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


def _permuting_sequences(subject: Subject, draws: Draws) -> None:
    batch = _batch(subject, draws, draws.integer(2, 4), _NEWS)
    order = draws.choice((tuple(reversed(range(len(batch.q)))),
                          (*range(1, len(batch.q)), 0)))
    _, out = _attend(subject, batch.arrays(range(len(batch.q))), batch.scale)
    parts = np.split(out, np.cumsum([len(q) for q in batch.q])[:-1])
    case, moved = _attend(subject, batch.arrays(order), batch.scale)
    subject.agree(case, {"out": moved}, {"out": np.concatenate([parts[s] for s in order])},
                  bits=subject.kernel.batch_invariant)


def _sequences_alone(subject: Subject, draws: Draws) -> None:
    batch = _batch(subject, draws, draws.integer(2, 4), _NEWS)
    _, out = _attend(subject, batch.arrays(range(len(batch.q))), batch.scale)
    parts = np.split(out, np.cumsum([len(q) for q in batch.q])[:-1])
    for s, part in enumerate(parts):
        case, alone = _attend(subject, batch.arrays([s]), batch.scale)
        subject.agree(case, {"out": alone}, {"out": part}, bits=subject.kernel.batch_invariant)


def _splitting_a_prefill(subject: Subject, draws: Draws) -> None:
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


def _paging(subject: Subject, draws: Draws) -> None:
    batch = _batch(subject, draws, draws.integer(1, 3), _NEWS)
    everyone = range(len(batch.q))
    _, whole = _attend(subject, batch.arrays(everyone), batch.scale)
    rng = np.random.default_rng(draws.integer(0, 2**32 - 1))
    case, paged = _attend(subject, batch.arrays(everyone, rng), batch.scale)
    subject.agree(case, {"out": paged}, {"out": whole})


# single ops

def _relative_positions(subject: Subject, draws: Draws) -> None:
    """rope(q, m)·rope(k, n) depends on m - n alone, up to what the angles' rounding allows."""
    size, far = draws.choice((64, 8, 128)), draws.choice((0, 1, 300, 4000))
    m, n = draws.integer(0, 100), draws.integer(0, 100)
    q, k = np.random.default_rng(draws.integer(0, 2**32 - 1)).standard_normal((2, size))
    freq = 10000.0 ** (-np.arange(0, size, 2) / size)
    case = subject.case({
        "x": np.stack([q, k, q, k])[:, None],
        "positions": np.array([m, n, m + far, n + far], np.int32), "inv_freq": freq},
        {"interleaved": draws.choice((False, True))})
    x = case.arrays["x"]
    out = subject.run(case)["out"]
    assert x is not None and out is not None  # rope's are not optional
    rows = out.astype(np.float64)[:, 0]
    before, after = rows[0] @ rows[1], rows[2] @ rows[3]
    length = float(np.prod([np.linalg.norm(v[0].astype(np.float64)) for v in x[:2]]))
    bound = length * (4 * (max(m, n) + far + 4) * 2.0**-24 + 2 * subject.dtypes["A"].eps)
    assert abs(before - after) <= bound, (
        f"positions {m}, {n}: {before:.6g}; {far} further on: {after:.6g}, expected equal within "
        f"{bound:.1e}, head size {size}")


def _shifting(subject: Subject, draws: Draws) -> None:
    """Values in eighths, so that adding a whole number rounds nothing in any dtype."""
    rows, width, shift = draws.integer(1, 5), draws.integer(1, 300), draws.integer(-7, 7)
    rng = np.random.default_rng(draws.integer(0, 2**32 - 1))
    x = rng.integers(-64, 65, (rows, width)) / 8
    plain = subject.run(subject.case({"x": x}, {}))
    case = subject.case({"x": x + shift}, {})
    subject.agree(case, subject.run(case), plain)


def _expanding(subject: Subject, draws: Draws) -> None:
    """Against the backend's own linear on the expanded weights, or the definition's."""
    bits = 8 if subject.dtypes["Q"].short == "i8" else 4
    t, n, k = draws.choice((1, 2, 5, 20)), draws.integer(1, 70), draws.integer(1, 300)
    group = draws.choice((32, 64, 2, 48, 7))
    r, groups = Draw(np.random.default_rng(draws.integer(0, 2**32 - 1))), -(-k // group)
    zeros = r.ints(0, 16, n, groups).astype(np.float64) if draws.choice((False, True)) else None
    case = subject.case({
        "x": r.normal(t, k), "codes": r.codes(bits, n, k),
        "scales": (0.5 + abs(r.normal(n, groups))) * k**-0.5 / (64 if bits == 8 else 4),
        "zeros": zeros, "bias": r.normal(n) if draws.choice((False, True)) else None},
        {"bits": bits, "group_size": group})
    x, codes, scales, zeros, bias = case.arrays.values()
    assert x is not None and codes is not None and scales is not None  # made above
    arrays = {"x": x, "weight": expand_weight(codes, scales, zeros, bits, group, k),
              "bias": None if bias is None else bias.astype(np.float32)}
    linear, attrs = OPS["linear"], {"out_dtype": subject.dtypes["O"].short}
    found = subject.run(case)
    try:
        (wanted,) = run_kernel(linear, arrays, attrs, backend=subject.kernel.backend,
                               registry=subject.registry)
    except NoKernelError:
        (wanted,) = run_reference(linear, arrays, attrs)
    subject.agree(case, found, {"out": wanted})


def _is(name: str) -> Callable[[Op], bool]:
    return lambda op: op.name == name


def _has_rows(op: Op) -> bool:
    return _axis(op) is not None


PROPERTIES = {p.name: p for p in (
    Property("permuting_rows", "permuting tokens or sequences permutes results", _has_rows,
             _permuting_rows),
    Property("rows_alone", "a row among others equals the row alone", _has_rows, _rows_alone),
    Property("splitting_rows", "two steps give what one gives", _has_rows, _splitting_rows),
    Property("permuting_sequences", "permuting sequences permutes their outputs", _is("attention"),
             _permuting_sequences),
    Property("sequences_alone", "a batch of sequences equals each alone", _is("attention"),
             _sequences_alone),
    Property("splitting_a_prefill", "a prompt in two chunks equals it in one", _is("attention"),
             _splitting_a_prefill),
    Property("paging", "a cache in any blocks equals a contiguous one", _is("attention"), _paging),
    Property("relative_positions", "a rotated product depends on the distance alone", _is("rope"),
             _relative_positions),
    Property("shifting", "adding a constant to every logit changes nothing", _is("softmax"),
             _shifting),
    Property("expanding", "a quantised product equals that with the expanded weights",
             _is("quantized_linear"), _expanding))}
