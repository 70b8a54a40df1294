"""The record of a test run on a GPU, which is committed: CI has no GPU to repeat it on.

It ties verdicts to the exact kernel sources by their SHA-256, so that a test without a GPU can tell
when a source has changed since it was last shown to be right.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.registry import Registry

PROPERTY = "kernelyard-case"  # (op, backend, dtypes, share of the budget used) of a matrix test


def source_hashes(sources: Mapping[str, Path]) -> dict[str, str]:
    """Hex SHA-256 of each file's bytes, by its stable name."""
    return {name: hashlib.sha256(path.read_bytes()).hexdigest()
            for name, path in sorted(sources.items())}


class GpuReport:
    """Counts of the matrix by backend, op and dtypes, and the names of everything that failed."""

    def __init__(self) -> None:
        self.matrix: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
        self._failed: list[tuple[str | None, str]] = []

    def add(self, test: str, outcome: str, properties: Mapping[str, Any]) -> None:
        """Count one test of the matrix by its cell; note any that failed."""
        backend = None  # a test of no backend in particular counts for all of the run
        if PROPERTY in properties:
            op, backend, dtypes, used = properties[PROPERTY]
            cell = self.matrix.setdefault(backend, {}).setdefault(op, {}).setdefault(
                dtypes, {"passed": 0, "failed": 0, "skipped": 0, "budget_used": 0.0})
            cell[outcome] += 1
            cell["budget_used"] = round(max(cell["budget_used"], used), 4)
        if outcome == "failed":
            self._failed.append((backend, test))

    def write(self, path: Path, registry: Registry) -> None:
        """Put the tested backends into the report at `path`; it keeps others, and all speeds.

        Sources of a tested backend are covered by this run, and no longer unverified.
        """
        report = json.loads(path.read_text()) if path.exists() else {}
        for name in sorted(self.matrix):
            backend = registry.backend(name)
            new = {"devices": backend.describe(), "matrix": self.matrix[name],
                   "failed": [test for of, test in self._failed if of in (None, name)],
                   "sources": source_hashes(backend.sources()), "unverified": []}
            for section, value in new.items():
                report.setdefault(section, {})[name] = value
        report.setdefault("speeds", [])
        partial = path.with_suffix(".part")
        partial.write_text(json.dumps(report, indent=1) + "\n")
        partial.replace(path)


def uncovered(report: Mapping[str, Any], backend: str, sources: Mapping[str, Path]) -> list[str]:
    """Sources whose contents the report has not seen and does not list as unverified."""
    known = report.get("sources", {}).get(backend, {})
    unverified = report.get("unverified", {}).get(backend, [])
    return [name for name, found in source_hashes(sources).items()
            if known.get(name) != found and name not in unverified]
