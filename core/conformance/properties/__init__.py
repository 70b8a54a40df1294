"""State the properties of ops: what must hold between two runs of one kernel for any numbers.

The matrix compares with the reference, at the shapes of the op's examples. Properties compare a
kernel with itself, at random shapes, and follow from the ops' contracts alone. Where a kernel
declares `batch_invariant` the rows must have equal bits; else both runs may err, so twice the op's
tolerance is allowed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from core.conformance.properties import paged, rows, single
from core.conformance.properties.subject import Draws, Subject
from core.ir.op import Op


@dataclass(frozen=True)
class Property:
    """State a property; `check` raises AssertionError where it does not hold for an example."""

    name: str
    says: str
    applies: Callable[[Op], bool]
    check: Callable[[Subject, Draws], None]


def _is(name: str) -> Callable[[Op], bool]:
    return lambda op: op.name == name


def _has_rows(op: Op) -> bool:
    return rows.axis(op) is not None


PROPERTIES = {p.name: p for p in (
    Property("permuting_rows", "permuting tokens or sequences permutes results", _has_rows,
             rows.permuting_rows),
    Property("rows_alone", "a row among others equals the row alone", _has_rows, rows.rows_alone),
    Property("splitting_rows", "two steps give what one gives", _has_rows, rows.splitting_rows),
    Property("permuting_sequences", "permuting sequences permutes their outputs", _is("attention"),
             paged.permuting_sequences),
    Property("sequences_alone", "a batch of sequences equals each alone", _is("attention"),
             paged.sequences_alone),
    Property("splitting_a_prefill", "a prompt in two chunks equals it in one", _is("attention"),
             paged.splitting_a_prefill),
    Property("paging", "a cache in any blocks equals a contiguous one", _is("attention"),
             paged.paging),
    Property("shifting_scores", "adding a constant to a query's scores changes nothing",
             _is("attention"), paged.shifting_scores),
    Property("relative_positions", "a rotated product depends on the distance alone", _is("rope"),
             single.relative_positions),
    Property("shifting", "adding a constant to every logit changes nothing", _is("softmax"),
             single.shifting),
    Property("expanding", "a quantised product equals that with the expanded weights",
             _is("quantized_linear"), single.expanding),
    Property("mapping_weights", "weights in a file's memory map give what others give",
             lambda op: bool(op.weight_params), single.mapping_weights))}
