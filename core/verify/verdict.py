"""Judges the results of calls by the float64 reference, and counts the verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.ir.tolerance import Tolerance
from core.plan.lower import Binding
from core.plan.plan import Plan
from core.plugins.kernel import Kernel
from core.tensor.tensor import Array
from core.verify.compare import Comparison, Expected, compare
from core.verify.coverage import Coverage
from core.verify.expected import expectations
from core.verify.memory.before import Site
from core.verify.shadow import Shadow
from core.verify.values import inputs_of, results_of

SHOWN = ("length", "T", "group", "d")  # the sizes that a verdict of one line names
Fault = tuple[str, str]  #: (op, kernel id) of a kernel that was wrong in a call
OURS = ""  #: names the run's own side of a call; every policy has a longer name


@dataclass(frozen=True)
class Verdict:
    """Holds how each result of a call compares with the reference, by the result's name, and the
    rules that were broken beside that: what was written that may not be."""

    comparisons: Mapping[str, Comparison]
    broken: Sequence[str] = ()

    @property
    def ok(self) -> bool:
        return not self.broken and all(c.ok for c in self.comparisons.values())

    @property
    def reason(self) -> str:
        """Say what is wrong: the broken rules, or else the worst result."""
        return "; ".join(self.broken) or str(self.worst)

    @property
    def worst(self) -> Comparison:
        """Return the result that used the largest share of its budget."""
        return max(self.comparisons.values(), key=lambda c: (not c.ok, c.used))


def judge_call(expected: Mapping[str, Expected], results: Mapping[str, Array],
               tolerance: Tolerance) -> Verdict:
    """Compare what a kernel computed in one call with what the reference expects of it."""
    return Verdict({k: compare(a, expected[k], tolerance) for k, a in results.items()
                    if k in expected})


def wrong_parts(plan: Plan) -> list[Fault]:
    """Run a plan step by step, and return the kernels that are wrong from their own inputs."""
    wrong = []
    for binding, launch in plan.walk():
        inputs = inputs_of(plan, binding)
        launch()
        expected = expectations(binding.op, inputs, binding.call.attrs)
        if not judge_call(expected, results_of(binding), binding.tolerance).ok:
            wrong.append((binding.op.name, binding.kernel.id))
    return wrong


@dataclass(frozen=True)
class Side:
    """Holds what one side computed in a call, its verdict, and the kernels that were wrong."""

    kernels: Sequence[Kernel]
    label: str
    results: Mapping[str, Array]
    verdict: Verdict
    faults: Sequence[Fault]


#: (kernel, sentence) for each rule that a side's kernels broke
Broken = Sequence[tuple[Kernel, str]]


def judge_sides(binding: Binding, results: Mapping[str, Array], shadows: Mapping[str, Shadow],
                expected: Mapping[str, Expected], broken: Mapping[str, Broken]) -> dict[str, Side]:
    """Judge a step's own `results` as OURS, and its shadows' by their names."""
    def side(name: str, kernels: Sequence[Kernel], found: Mapping[str, Array], parts: Plan | None,
             ) -> Side:
        rules = broken.get(name, ())
        verdict = judge_call(expected, found, binding.tolerance)
        label = ", ".join(dict.fromkeys(k.id for k in kernels))
        faults = [(k.op, k.id) for k, _ in rules]
        if not verdict.ok:
            faults += (wrong_parts(parts) if parts is not None else []) or [
                (binding.op.name, label)]
        return Side(kernels, label, found,
                    Verdict(verdict.comparisons, [text for _, text in rules]),
                    list(dict.fromkeys(faults)))
    theirs = {name: side(name, s.kernels, {k: s.result(v) for k, v in binding.outputs.items()},
                         s.plan) for name, s in shadows.items()}
    return {OURS: side(OURS, [binding.kernel], results, None), **theirs}


@dataclass
class CheckRow:
    """Counts the calls of one (op, kernel) that were compared with one policy, and keeps the worst.

    `faults` counts the calls in which a kernel was wrong by the reference, and `first` names the
    node of the first; `reason` says what was wrong there, and `vote` what the results said of each
    other. `coverage` holds the sizes of the calls. `overflowed` is the first node at which the
    definition itself overflows, so that not every element was judged.
    """

    op: str
    kernel: str
    against: str
    calls: int = 0
    wrong: int = 0
    worst: Comparison | None = None
    worst_node: str = ""
    skipped: str = ""
    itself: bool = False
    faults: dict[Fault, int] = field(default_factory=dict)
    first: str = ""
    vote: str = ""
    reason: str = ""
    coverage: Coverage = field(default_factory=Coverage)
    overflowed: str = ""

    def add(self, verdict: Verdict, node: str, kernels: str, faults: Sequence[Fault] = ()) -> None:
        """Count the faults of one side of a call, and keep its worst result with the node."""
        for found in verdict.comparisons.values():
            if self.worst is None or found.used > self.worst.used:
                self.worst, self.worst_node = found, f"{node} ({kernels})"
            if found.unjudged and not self.overflowed:
                self.overflowed = node
        for fault in faults:
            self.faults[fault] = self.faults.get(fault, 0) + 1
            self.first = self.first or node
            self.reason = self.reason or f"{node} ({kernels}): {verdict.reason}"

    def to_json(self) -> dict[str, Any]:
        """Return the row as plain data; `worst` is None where nothing was compared."""
        w = self.worst
        return {"op": self.op, "kernel": self.kernel, "against": self.against,
                "calls": self.calls, "wrong": self.wrong,
                "faults": [{"op": op, "kernel": kernel, "calls": count}
                           for (op, kernel), count in self.faults.items()],
                "first_wrong": self.first, "skipped": self.skipped, "vote": self.vote,
                "reason": self.reason, "coverage": self.coverage.seen(),
                "wrong_calls": self.coverage.which, "overflowed": self.overflowed,
                "same_kernel": self.itself,
                "worst": None if w is None else {
                    "node": self.worst_node, "nmse": w.nmse, "max_abs": w.max_abs,
                    "max_rel": w.max_rel, "index": list(w.worst), "budget_used": w.used}}


class Tally:
    """Counts the comparisons of a run in one row for each (op, kernel) and policy of `against`."""

    def __init__(self, against: Sequence[str]) -> None:
        self.against = list(against)
        self._rows: dict[tuple[str, str, str], CheckRow] = {}

    def count(self, site: Site, shadows: Mapping[str, Shadow | str],
              agreed: Mapping[str, Verdict],
              sides: Mapping[str, Side], vote: str) -> None:
        """Count one call: shadows that agreed, or else the sides that were judged, with their vote.

        A string in place of a shadow is the reason why there is none.
        """
        binding, sizes = site.binding, site.sizes()
        node, own = binding.node.name, binding.kernel
        for name in self.against:
            key = binding.op.name, own.id, name
            row = self._rows.get(key) or self._rows.setdefault(key, CheckRow(*key))
            shadow = shadows.get(name)
            if isinstance(shadow, str):
                row.skipped = shadow.splitlines()[0]
                continue
            row.calls, wrong = row.calls + 1, False
            row.itself = shadow is not None and set(shadow.kernels) == {own}
            if name in agreed:
                row.add(agreed[name], node, own.id)
            else:
                judged = [sides[n] for n in (OURS, name) if n in sides]
                for side in judged:
                    row.add(side.verdict, node, side.label, side.faults)
                wrong = any(side.faults for side in judged)
                if wrong:
                    row.wrong, row.vote = row.wrong + 1, row.vote or vote
            row.coverage.add(node, sizes, wrong=wrong)

    @property
    def rows(self) -> list[CheckRow]:
        return list(self._rows.values())

    @property
    def calls(self) -> int:
        return sum(r.calls for r in self.rows)

    @property
    def wrong(self) -> int:
        return sum(r.wrong for r in self.rows)

    @property
    def found(self) -> str:
        """Say how many comparisons were wrong, and what was wrong in the first of them."""
        reasons = [r.reason for r in self.rows if r.wrong]
        return ": ".join([f"{self.wrong} wrong", *reasons[:1]])

    @property
    def ok(self) -> bool:
        """Return True if something was compared and nothing was wrong."""
        return self.calls > 0 and self.wrong == 0

    @property
    def skipped(self) -> list[str]:
        """Return the ops that a policy has no kernel for, as "op by policy"."""
        return sorted({f"{r.op} by {r.against}" for r in self.rows if r.skipped})

    @property
    def notes(self) -> list[str]:
        """Say where nothing could be judged, since the definition itself overflows."""
        found = {r.op: r.overflowed for r in self.rows if r.overflowed}
        return [f"{op}: the definition itself overflows in this dtype, first at node {node}; no "
                "kernel is judged there; --check-finite names the first NaN or Inf"
                for op, node in found.items()]

    def faults(self) -> dict[Fault, int]:
        """Return how often each (op, kernel) was wrong by the reference, the most often first."""
        found: dict[Fault, int] = {}
        for row in self.rows:
            for key, count in row.faults.items():
                found[key] = max(found.get(key, 0), count)
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def __str__(self) -> str:
        ops, compared = {r.op for r in self.rows}, {r.op for r in self.rows if r.calls}
        wrong = list(dict.fromkeys(r.op for r in self.rows if r.wrong))
        seen = Coverage()
        for row in self.rows:
            seen.merge(row.coverage)
        found = f"DISAGREES with {', '.join(self.against)} on {len(wrong)}" if wrong else (
            f"agrees with {', '.join(self.against)} on {len(compared)}" if compared else
            f"was compared with {', '.join(self.against)} on 0")
        said = f"{found} of {len(ops)} ops" + (f" ({', '.join(wrong)})" if wrong else "")
        if sizes := seen.seen(SHOWN):
            said += f"; seen: {sizes}"
        return f"{said}; not compared: {', '.join(self.skipped)}" if self.skipped else said
