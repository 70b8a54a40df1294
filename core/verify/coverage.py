"""Counts what a check has seen: the sizes, lengths and nodes of right and of wrong calls."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from core.plan.lower import Binding

_ROOM = {"B", "NB", "BS"}  # dimensions that say how large a cache is, and nothing of the call
_FIRST = ("length", "T", "S", "group")  # what a fault most often depends on


def fixed_sizes(binding: Binding) -> dict[str, int]:
    """Return the dimensions of each call of a binding by name, with the query heads of a key/value
    head as `group`."""
    found = {k: v for k, v in binding.call.dims.items() if k not in _ROOM}
    if found.get("Hkv") and "H" in found:
        found["group"] = found["H"] // found["Hkv"]
    return found


@dataclass
class Coverage:
    """Holds the sizes and the nodes of the calls that were right, and of those that were wrong."""

    right: dict[str, set[int]] = field(default_factory=dict)
    wrong: dict[str, set[int]] = field(default_factory=dict)
    nodes: tuple[set[str], set[str]] = field(default_factory=lambda: (set(), set()))
    calls: list[int] = field(default_factory=lambda: [0, 0])

    def add(self, node: str, sizes: Mapping[str, int], *, wrong: bool) -> None:
        """Count one call."""
        seen = self.wrong if wrong else self.right
        for name, value in sizes.items():
            if name in seen:
                seen[name].add(value)
            else:
                seen[name] = {value}
        self.nodes[wrong].add(node)
        self.calls[wrong] += 1

    def merge(self, other: Coverage) -> None:
        """Add the calls that another one has counted."""
        for mine, theirs in ((self.right, other.right), (self.wrong, other.wrong)):
            for name, values in theirs.items():
                mine.setdefault(name, set()).update(values)
        for i in range(2):
            self.nodes[i].update(other.nodes[i])
            self.calls[i] += other.calls[i]

    def seen(self, only: Collection[str] | None = None) -> str:
        """Describe what was compared, such as "lengths 5 to 45, T 1 and 5, groups 7"; of these
        sizes `only` where given."""
        names = [*_FIRST, *sorted({*self.right, *self.wrong} - {*_FIRST})]
        both = {n: self.right.get(n, set()) | self.wrong.get(n, set()) for n in names}
        return ", ".join(f"{_plural(n)} {_range(v)}" for n, v in both.items()
                         if v and (only is None or n in only))

    @property
    def which(self) -> str:
        """Say which calls were wrong, by the one size, or else the nodes, that tells them apart."""
        if not self.calls[1]:
            return ""
        if not self.calls[0]:
            return "every call is wrong"
        for name in [*_FIRST, *sorted({*self.wrong} - {*_FIRST})]:
            right, wrong = self.right.get(name, set()), self.wrong.get(name, set())
            if not right or not wrong or right & wrong:
                continue
            if min(wrong) > max(right):
                return f"all calls of {name} beyond {max(right)} are wrong, none up to that"
            if max(wrong) < min(right):
                return f"all calls of {name} below {min(right)} are wrong, none from there on"
            return f"the calls of {name} {_range(wrong)} are wrong, no others"
        nodes, others = self.nodes[1], self.nodes[0]
        if not nodes & others:
            return f"the calls at {', '.join(sorted(nodes)[:3])}" + (
                f" and {len(nodes) - 3} more nodes" if len(nodes) > 3 else "") + " are wrong, " \
                "no others"
        return f"{self.calls[1]} of {sum(self.calls)} calls are wrong; no size tells them apart"


def _plural(name: str) -> str:
    return f"{name}s" if name in ("length", "group") else name


def _range(values: Collection[int]) -> str:
    few = sorted(values)
    return (" and ".join(map(str, few)) if len(few) < 3 else f"{few[0]} to {few[-1]}")
