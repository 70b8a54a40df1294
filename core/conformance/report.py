"""Stores a run of the suite as JSON: verdicts by backend, op and dtypes, tied to sources.

The record of a run on a GPU is committed, since CI has no GPU to repeat it on. The SHA-256 of the
kernel sources lets a test without a GPU tell when one has changed since it was shown to be right.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from core.conformance.cases import Case, dtype_id
from core.conformance.trials import PropertyCase
from core.errors import OptionError
from core.files import write_whole
from core.installed.registry import Registry
from core.ir.op import OPS

CASE = "kernelyard-case"  #: a test's property: what it found of one case of the matrix
PROPERTY = "kernelyard-property"  #: the same, of a property of a kernel
BACKEND = "kernelyard-backend"  #: the name of the backend that a test is of, where it says no more
CHECK = "kernelyard-check"  #: what else a test found of a backend: {"backend": name, "said": text}
SPEEDS = "kernelyard-speeds"  #: rows as `models.bench --json` gives them


def case_facts(case: Case) -> dict[str, Any]:
    """Return what a report needs of a case, before anything has run."""
    return {"op": case.op.name, "backend": case.backend, "dtypes": dtype_id(case.dtypes),
            "used": 0.0, "own": False, "offered": case.example is not None, "kernels": {},
            "tolerances": {}}


def property_facts(test: PropertyCase) -> dict[str, Any]:
    """Return what a report needs of a property of a kernel, before anything has run."""
    kernel = test.subject.kernel
    return {"property": test.prop.name, "backend": kernel.backend, "op": kernel.op,
            "kernel": kernel.name}


@dataclass
class Counts:
    """Counts outcomes of tests. A skipped case is one that every kernel refuses, or that has no
    kernel; `known` are failures that the backend's file of known failures explains."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    known: int = 0
    budget_used: float | None = 0.0  #: the largest share of the op's budget; None: beyond any
    own: int = 0  #: passed beyond the op's budget, by the kernel's own tolerance
    offered: bool = True  #: some kernel declares these dtypes
    reasons: list[str] = field(default_factory=list)  #: why kernels refuse, each once
    speed: dict[str, Any] | None = None  #: of the case that moves most bytes

    def add(self, outcome: str, found: Mapping[str, Any]) -> None:
        setattr(self, outcome, getattr(self, outcome) + 1)
        used = found.get("used", 0.0)
        self.budget_used = (None if used is None or self.budget_used is None
                            else round(max(self.budget_used, used), 4))
        self.own += outcome == "passed" and found.get("own", False)
        self.offered = found.get("offered", True)
        self.reasons += [r for r in found.get("reasons", ()) if r not in self.reasons]
        speed = found.get("speed")
        if speed and (self.speed is None or speed["nbytes"] > self.speed["nbytes"]):
            self.speed = speed

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Counts:
        return cls(**{k: v for k, v in stored.items() if k in cls.__dataclass_fields__})


Table = dict[str, dict[str, dict[str, Counts]]]


class Report:
    """Holds outcomes by backend, op and dtypes, by backend, op and kernel, by backend and
    property."""

    def __init__(self) -> None:
        self.calls = False  #: the cases are a model's calls, not the ops' examples
        self.matrix: Table = {}
        self.kernels: Table = {}
        self.properties: dict[str, dict[str, Counts]] = {}
        self.failed: list[tuple[str | None, str]] = []  #: (backend, test)
        self.known_failures: dict[str, dict[str, str]] = {}  #: by backend, test: the reason
        self.own_tolerances: dict[str, dict[str, str]] = {}  #: by backend, kernel
        self.unverified: dict[str, list[str]] = {}  #: sources changed since the included run
        self.devices: dict[str, str] = {}
        self.speeds: list[dict[str, Any]] = []
        self.checks: dict[str, dict[str, dict[str, str]]] = {}  #: by backend and test

    def add(self, test: str, outcome: str, properties: Mapping[str, Any], reason: str = "") -> None:
        """Count one test. `outcome` is passed, failed, skipped or known, the last with a reason."""
        backend = properties.get(BACKEND)  # without one it counts for all of the run
        if (case := properties.get(CASE)) is not None:
            backend, op = case["backend"], case["op"]
            cells = self.matrix.setdefault(backend, {}).setdefault(op, {})
            cells.setdefault(case["dtypes"], Counts()).add(outcome, case)
            self.own_tolerances.setdefault(backend, {}).update(case["tolerances"])
            for kernel, found in case["kernels"].items():
                verdict = outcome if outcome == "known" else "passed" if found["ok"] else "failed"
                self._kernel(backend, op, kernel).add(verdict, found)
        if (found := properties.get(PROPERTY)) is not None:
            backend = found["backend"]
            by_name = self.properties.setdefault(backend, {})
            by_name.setdefault(found["property"], Counts()).add(outcome, found)
            if outcome == "failed":
                self._kernel(backend, found["op"], found["kernel"]).failed += 1
        self.speeds += properties.get(SPEEDS, [])
        if (found := properties.get(CHECK)) is not None and outcome in ("passed", "failed"):
            self.checks.setdefault(found["backend"], {})[test.rsplit("/", 1)[-1]] = {
                "outcome": outcome, "said": found["said"]}
        if outcome == "failed":
            self.failed.append((backend, test))
        if outcome == "known" and backend is not None:
            self.known_failures.setdefault(backend, {})[test] = reason

    def _kernel(self, backend: str, op: str, kernel: str) -> Counts:
        return self.kernels.setdefault(backend, {}).setdefault(op, {}).setdefault(kernel, Counts())

    @property
    def backends(self) -> list[str]:
        return sorted(self.matrix)

    def include(self, path: Path) -> None:
        """Add what another run, such as one on a machine with a GPU, found of other backends.

        Raises OptionError if the file is missing or no report.
        """
        stored = read_json(path)
        for backend in sorted({*stored["matrix"], *stored.get("unverified", {})} - {*self.matrix}):
            self.matrix[backend] = {op: {d: Counts.of(c) for d, c in cells.items()}
                                    for op, cells in stored["matrix"].get(backend, {}).items()}
            self.properties[backend] = {name: Counts.of(c) for name, c in stored.get(
                "properties", {}).get(backend, {}).items()}
            self.devices[backend] = stored["devices"].get(backend, "not run on any device yet")
            self.speeds += [s for s in stored.get("speeds", [])
                            if s.get("backend", "").split(",")[0] == backend]
            self.known_failures[backend] = stored.get("known_failures", {}).get(backend, {})
            self.own_tolerances[backend] = stored.get("own_tolerances", {}).get(backend, {})
            self.unverified[backend] = stored.get("unverified", {}).get(backend, [])

    def describe(self, registry: Registry) -> None:
        """Note on which devices this was."""
        self.devices.update({b: registry.backend(b).describe() for b in self.matrix
                             if b not in self.devices})

    def write_json(self, path: Path, registry: Registry) -> None:
        """Put the tested backends, the measured speeds and other checks into the report at `path`.

        It keeps other backends, and the speeds and checks that were not made again, unless they are
        of other sources. Sources of a tested backend are covered by this run, and no longer
        unverified.
        """
        report = json.loads(path.read_text()) if path.exists() else {}
        report["speeds"] = [r for r in report.get("speeds", []) if _what(r) not in
                            {_what(row) for row in self.speeds}] + self.speeds
        checks = report.setdefault("checks", {})
        for name in self.backends:
            new = {"devices": self.devices[name], "matrix": _plain(self.matrix[name]),
                   "kernels": _plain(self.kernels.get(name, {})),
                   "properties": _plain(self.properties.get(name, {})),
                   "failed": [test for of, test in self.failed if of in (None, name)],
                   "known_failures": self.known_failures.get(name, {}),
                   "tolerances": {op: str(OPS[op].tolerance) for op in self.matrix[name]},
                   "own_tolerances": self.own_tolerances.get(name, {}),
                   "sources": source_hashes(registry.backend(name).sources()), "unverified": []}
            if report.get("sources", {}).get(name, new["sources"]) != new["sources"]:
                report["speeds"] = [r for r in report["speeds"]
                                    if r["backend"] != name or r in self.speeds]
                checks.pop(name, None)
            for section, value in new.items():
                report.setdefault(section, {})[name] = value
        for name, made in self.checks.items():
            checks.setdefault(name, {}).update(made)
        write_whole(path, json.dumps(report, indent=1, allow_nan=False) + "\n")


def _what(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Describe what a row of speeds measured."""
    return tuple(row.get(k) for k in ("backend", "shape", "layers", "stored", "quantize", "prompt",
                                      "tokens"))


def finite(used: float) -> float | None:
    """Return a share of the budget as JSON can hold it: None where it is infinite."""
    return used if math.isfinite(used) else None


def read_json(path: Path) -> dict[str, Any]:
    """Return a report's contents. Raises OptionError if the file is missing or no report."""
    try:
        stored = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise OptionError(f"{path} cannot be read as a report: {error}") from None
    if not isinstance(stored, dict) or not {"matrix", "devices"} <= set(stored):
        raise OptionError(f"{path} is no report of the conformance suite: expected the keys "
                          "`matrix` and `devices`, as --report FILE.json writes them")
    return stored


def source_hashes(sources: Mapping[str, Path]) -> dict[str, str]:
    """Return the hex SHA-256 of each file's bytes, by its stable name."""
    return {name: hashlib.sha256(path.read_bytes()).hexdigest()
            for name, path in sorted(sources.items())}


def uncovered(report: Mapping[str, Any], backend: str, sources: Mapping[str, Path]) -> list[str]:
    """Return sources whose contents the report has not seen and does not list as unverified."""
    known = report.get("sources", {}).get(backend, {})
    unverified = report.get("unverified", {}).get(backend, [])
    return [name for name, found in source_hashes(sources).items()
            if known.get(name) != found and name not in unverified]


def _plain(found: Any) -> Any:  # noqa: ANN401 - nested tables of Counts
    """Counts as dicts, without the fields that say nothing, sorted: tests may run in any order."""
    if isinstance(found, Counts):
        always = {"passed", "failed", "skipped", "budget_used"}
        return {k: v for k, v in asdict(found).items()
                if k in always or v != getattr(Counts(), k)}
    return {k: _plain(v) for k, v in sorted(found.items())}
