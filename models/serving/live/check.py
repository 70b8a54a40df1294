"""Verifies a share of an engine's steps while it serves, by the judging code of `run --check`."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from core.errors import OptionError
from core.installed.registry import Registry
from core.reading import shown
from core.runtime.batch import Batch
from core.runtime.executor import Executor, Pending
from core.verify.crosscheck import CrossCheck
from core.verify.live.copied_steps import CopiedSteps
from core.verify.verdict import Fault, Tally

RATE = 0.01  #: the share of steps that are checked unless the user says otherwise


@dataclass(frozen=True)
class CheckCounts:
    """Hold what a check has counted so far.

    against  the texts of the policies that steps are compared with
    steps    that were checked; `skipped` were too large, and in `failed` the check itself failed
    calls    by (op, kernel): calls that were compared
    wrong    by (op, kernel): calls in which that kernel was wrong by the definition
    """

    against: tuple[str, ...]
    rate: float
    steps: int
    skipped: int
    failed: int
    calls: dict[Fault, int]
    wrong: dict[Fault, int]

    def to_json(self) -> dict[str, Any]:
        """Return the counts as plain data, with the kernels that were wrong by their ops."""
        return {"against": list(self.against), "rate": self.rate, "steps": self.steps,
                "skipped": self.skipped, "failed": self.failed,
                "calls": sum(self.calls.values()), "wrong": [
                    {"op": op, "kernel": kernel, "calls": n}
                    for (op, kernel), n in self.wrong.items()]}


class LiveCheck:
    """Submits an executor's steps, and computes a share of them once more to compare every node.

    The executor's own step is left alone: what is checked is a copy of it (`CopiedSteps`), so that
    answers are what they are without the check, whatever it finds and wherever it fails. Which
    steps are checked is drawn by a generator that always begins alike.

    against  texts of policies, see `core.verify.policies`; `reference` is the definition
    rate     the share of steps
    tell     is told in one line each kernel that is wrong, once, and the first failure of the check
    Raises as `CrossCheck`, OptionError for another rate.
    """

    def __init__(self, executor: Executor, registry: Registry, against: Sequence[str],
                 rate: float = RATE, tell: Callable[[str], object] = print) -> None:
        self._executor, self._rate, self._tell = executor, check_rate(rate), tell
        self._check = CrossCheck(registry, against, moving=True)
        self._copies = CopiedSteps(executor, self._check)
        self._random = random.Random(0)
        self._told = set[Fault]()
        self._steps = self._skipped = self._failed = 0

    def submit(self, batch: Batch) -> Pending:
        """Queue a step as `Executor.submit` does, and check it if it is drawn."""
        if self._random.random() >= self._rate:
            return self._executor.submit(batch)
        compute = self._copied(batch)
        pending = self._executor.submit(batch)
        if compute is not None:
            self._compare(compute)
        return pending

    def _copied(self, batch: Batch) -> Callable[[], None] | None:
        try:
            compute = self._copies.take(batch)
        except Exception as error:
            self._fails(error)
            return None
        self._skipped += compute is None
        return compute

    def _compare(self, compute: Callable[[], None]) -> None:
        try:
            compute()
            self._steps += 1
        except Exception as error:
            self._fails(error)
        for row in self.tally.rows:
            for op, kernel in row.faults.keys() - self._told:
                self._told.add((op, kernel))
                self._tell(f"check: {kernel} ({op}) is wrong, compared with {row.against}; first "
                           f"at {row.reason}; vote: {row.vote}")

    def _fails(self, error: Exception) -> None:
        """Count a step that the check could not compute; its answer is not touched by that."""
        if not self._failed:
            self._tell(f"check: a step could not be checked ({type(error).__name__}: {error}); "
                       "the next ones that fail are counted only")
        self._failed += 1

    @property
    def tally(self) -> Tally:
        return self._check.tally

    @property
    def counts(self) -> CheckCounts:
        """Return what has been counted so far."""
        tally, calls = self.tally, dict[Fault, int]()
        for row in tally.rows:
            key = row.op, row.kernel
            calls[key] = max(calls.get(key, 0), row.calls)
        return CheckCounts(tuple(tally.against), self._rate, self._steps, self._skipped,
                           self._failed, calls, tally.faults())

    def to_json(self) -> dict[str, Any]:
        """Return the counts, and the rows that `run --check` gives."""
        return {**self.counts.to_json(), "rows": [row.to_json() for row in self.tally.rows]}


def check_rate(rate: float) -> float:
    """Return the share of steps that are to be checked. Raises OptionError for what is none."""
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate <= 1:
        raise OptionError(f"--check-rate is {shown(rate)}, expected a share above 0, at most 1")
    return float(rate)
