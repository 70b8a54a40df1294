"""What a cross-check reports of one kernel against one opinion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from core.verify.compare import Comparison


@dataclass
class CheckRow:
    """The worst outcome of one (op, kernel) against one opinion. `faults` counts the calls in which
    an (op, kernel) was wrong by the definition; `vote` is what the opinions said the first time."""

    op: str
    kernel: str
    against: str
    calls: int = 0
    wrong: int = 0
    worst: Comparison | None = None
    worst_node: str = ""
    skipped: str = ""
    itself: bool = False
    faults: dict[tuple[str, str], int] = field(default_factory=dict)
    first: str = ""
    vote: str = ""

    def add(self, verdicts: Sequence[Comparison], node: str, kernel: str) -> None:
        """Keep the worst, with the node and who computed it."""
        for verdict in verdicts:
            if self.worst is None or verdict.used > self.worst.used:
                self.worst, self.worst_node = verdict, f"{node} ({kernel})"

    def to_json(self) -> dict[str, Any]:
        """The row as plain data; `worst` is None where nothing was compared."""
        w = self.worst
        return {"op": self.op, "kernel": self.kernel, "against": self.against,
                "calls": self.calls, "wrong": self.wrong,
                "faults": [{"op": op, "kernel": kernel, "calls": count}
                           for (op, kernel), count in self.faults.items()],
                "first_wrong": self.first, "skipped": self.skipped, "vote": self.vote,
                "same_kernel": self.itself,
                "worst": None if w is None else {
                    "node": self.worst_node, "nmse": w.nmse, "max_abs": w.max_abs,
                    "max_rel": w.max_rel, "index": list(w.worst), "budget_used": w.used}}
