"""Ledger: records for every node of a plan which kernel runs it and why others do not."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class LedgerEntry:
    """Records one binding.

    covers  the graph nodes that it computes, several for a fused kernel
    guest   the kernel is of another distribution (`source`) than its backend
    """

    node: str
    op: str
    phase: str
    tokens: int
    kernel: str
    source: str
    covers: tuple[str, ...]
    refused: tuple[tuple[str, str], ...]
    note: str = ""
    guest: bool = False


@dataclass(frozen=True)
class Ledger:
    """Hold entries in execution order; equal choices give equal hashes."""

    entries: tuple[LedgerEntry, ...]

    @property
    def hash(self) -> str:
        """Return 12 hex digits over the set of choices: node, phase, kernel, and the package
        version it came from. Prompts of different lengths that run the same kernels have the same
        hash."""
        chosen = sorted({(e.node, e.op, e.phase, e.kernel, e.source) for e in self.entries})
        return hashlib.sha256(json.dumps(chosen).encode()).hexdigest()[:12]

    def to_json(self) -> dict[str, Any]:
        return {"hash": self.hash, "entries": [asdict(e) for e in self.entries]}

    def summary(self) -> list[dict[str, Any]]:
        """Return one row for each distinct (op, phase, tokens, kernel, refusals, note), with its
        count."""
        rows: dict[tuple[object, ...], dict[str, Any]] = {}
        for e in self.entries:
            key = (e.op, e.phase, e.tokens, e.kernel, e.refused, e.note)
            row = rows.setdefault(key, {
                "op": e.op, "phase": e.phase, "tokens": e.tokens, "kernel": e.kernel,
                "source": e.source, "guest": e.guest, "nodes": 0, "first": e.node,
                "covers": len(e.covers),
                "refused": [f"{k}: {why}" for k, why in e.refused], "note": e.note})
            row["nodes"] += 1
        return list(rows.values())

    def __add__(self, other: Ledger) -> Ledger:
        return Ledger(self.entries + other.entries)
