"""State the properties of every op whose rows, of tokens or of sequences, are independent."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from core.conformance.cases import Case, dtype_id, examples_of
from core.conformance.properties.subject import Arrays, Draws, Refused, Subject
from core.ir.examples import Example, ExampleInputs
from core.ir.op import Op
from core.tensor.dtype import DType
from core.tensor.tensor import Array

SMALL = 1 << 18  # elements of a sample that an example may use


def axis(op: Op) -> str | None:
    """Return the dimension that counts independent rows: tokens, sequences, rows that sample, or
    none."""
    if not op.independent_rows:
        return None
    first = {p.dims[0] for p in op.sig.params if p.dims}
    return next((dim for dim in ("T", "S", "R") if dim in first), None)


def take_rows(op: Op, arrays: Arrays, rows: Array) -> Arrays:
    """Return the inputs with only these rows, in this order, and the entries that belong to
    them."""
    dims, starts = {p.name: p.dims for p in op.sig.params}, arrays.get("starts")
    taken = {k: a[rows] if dims[k][:1] == (axis(op),) and a is not None else a
             for k, a in arrays.items()}
    if starts is not None:
        entries = [np.arange(starts[r], starts[r + 1]) for r in rows]
        chosen = np.concatenate([*entries, np.zeros(0, np.int64)])
        taken |= {k: a[chosen] for k, a in arrays.items() if dims[k] == ("E",) and a is not None}
        taken["starts"] = np.cumsum([0, *map(len, entries)], dtype=np.int32)
    return taken


def join_rows(op: Op, many: Sequence[Arrays], count: int) -> Arrays:
    """Return inputs with `count` rows: those of `many` after each other, and again. What does not
    belong to rows is the first one's."""
    dims, joined = {p.name: p.dims for p in op.sig.params}, dict(many[0])
    for name, array in joined.items():
        if array is not None and dims[name][:1] in ((axis(op),), ("E",)):
            joined[name] = np.concatenate([a for arrays in many if (a := arrays[name]) is not None])
    if (starts := joined.get("starts")) is not None:
        entries = np.concatenate([np.diff(a) for arrays in many
                                  if (a := arrays["starts"]) is not None])
        joined["starts"] = starts = np.cumsum([0, *entries], dtype=np.int32)
    rows = len(starts) - 1 if starts is not None else next(
        len(a) for k, a in joined.items() if a is not None and dims[k][:1] == (axis(op),))
    return take_rows(op, joined, np.arange(count) % rows)


def split_results(op: Op, results: Arrays) -> tuple[Arrays, Arrays]:
    """Split results into those with a row for each row of the inputs and those, such as caches,
    that have none."""
    shapes = {p.name: p for p in (*op.sig.params, *op.sig.outputs)}
    by_row = {k for k in results if shapes[k].dims[:1] == (axis(op),)}
    return ({k: a for k, a in results.items() if k in by_row},
            {k: a for k, a in results.items() if k not in by_row})


@cache
def small_examples(op: Op, cell: str, pairs: tuple[tuple[str, DType], ...]) -> tuple[Example, ...]:
    """Choose examples with at least two rows that run in about a millisecond."""
    found = []
    for sample in examples_of(op, dict(pairs)):
        made = Case(op, "none", dict(pairs), sample).arrays
        rows = max((made[p.name].shape[0] for p in op.sig.params  # type: ignore[union-attr]
                    if p.dims[:1] == (axis(op),) and made[p.name] is not None), default=0)
        if rows > 1 and sum(a.size for a in made.values() if a is not None) <= SMALL:
            found.append(sample)
    return tuple(found)


def _row_example(subject: Subject, draws: Draws) -> tuple[Arrays, dict[str, Any], int,
                                                          np.random.Generator]:
    """Make (inputs, attributes, number of rows, a generator to choose rows by) from one of the op's
    examples, with new values."""
    op = subject.op
    samples = small_examples(op, dtype_id(subject.dtypes), tuple(subject.dtypes.items()))
    if not samples:
        raise Refused(f"{op.name} has no sample with several rows")
    sample = draws.choice(samples)
    rng = np.random.default_rng(draws.integer(0, 2**32 - 1))
    arrays = sample.make(ExampleInputs(rng))
    rows = next(len(a) for p in op.sig.params if p.dims[:1] == (axis(op),)
                and (a := arrays.get(p.name)) is not None)
    taken = min(rows, draws.choice((rows, 2, 5)))  # some kernels are for a few rows
    every = {p.name: arrays.get(p.name) for p in op.sig.params}
    return take_rows(op, every, np.arange(taken)), sample.attrs, taken, rng


def permuting_rows(subject: Subject, draws: Draws) -> None:
    arrays, attrs, rows, rng = _row_example(subject, draws)
    order = rng.permutation(rows)
    whole = subject.run(subject.case(arrays, attrs))
    moved = subject.case(take_rows(subject.op, arrays, order), attrs)
    by_row, rest = split_results(subject.op, whole)
    wanted = {k: None if a is None else a[order] for k, a in by_row.items()}
    subject.agree(moved, subject.run(moved), {**wanted, **rest},
                  bits=subject.kernel.batch_invariant)


def rows_alone(subject: Subject, draws: Draws) -> None:
    arrays, attrs, rows, rng = _row_example(subject, draws)
    taken = np.sort(rng.permutation(rows)[:draws.choice((1, 1, 2, max(1, rows // 2)))])
    by_row, _ = split_results(subject.op, subject.run(subject.case(arrays, attrs)))
    alone = subject.case(take_rows(subject.op, arrays, taken), attrs)
    wanted = {k: None if a is None else a[taken] for k, a in by_row.items()}
    subject.agree(alone, subject.run(alone), wanted, bits=subject.kernel.batch_invariant)


def splitting_rows(subject: Subject, draws: Draws) -> None:
    """Compare two steps, the second on the state that the first left, with one."""
    arrays, attrs, rows, _ = _row_example(subject, draws)
    cut = draws.integer(1, rows - 1)
    case = subject.case(arrays, attrs)
    whole = subject.run(case)
    first = subject.run(subject.case(take_rows(subject.op, arrays, np.arange(cut)), attrs))
    rows_first, state = split_results(subject.op, first)
    second = subject.run(subject.case(
        {**take_rows(subject.op, arrays, np.arange(cut, rows)), **state}, attrs))
    rows_second, state = split_results(subject.op, second)
    joined = {k: None if a is None or (b := rows_second[k]) is None else np.concatenate([a, b])
              for k, a in rows_first.items()}
    subject.agree(case, {**joined, **state}, whole, bits=subject.kernel.batch_invariant)
