"""Votes among several results of one call, to find the one that stands alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from core.installed.registry import Registry
from core.ir.tolerance import Tolerance
from core.plugins.kernel import Kernel
from core.tensor.dtype import as_dtype
from core.tensor.tensor import Array
from core.verify.capsules.provenance import source_text
from core.verify.compare import Budget, Expected, budget_of, judge
from core.verify.policies import REFERENCE
from core.verify.verdict import Side


@dataclass(frozen=True)
class Voter:
    """Holds one side's results by name, and the hashes of the sources that computed them."""

    name: str
    results: Mapping[str, Array]
    sources: frozenset[str]


@dataclass(frozen=True)
class Vote:
    """Names the majority and the outliers; both are empty where no side has the most votes."""

    votes: int
    majority: tuple[str, ...]
    outliers: tuple[str, ...]
    shared: tuple[tuple[str, ...], ...]

    def __str__(self) -> str:
        text = (f"outlier: {', '.join(self.outliers)} ({self.votes} votes, "
                f"{', '.join(self.majority)} agree)" if self.outliers else
                "all agree" if self.majority else f"no majority among {self.votes} votes")
        same = "; ".join(f"{' and '.join(names)} share source and are one vote"
                         for names in self.shared)
        return f"{text}; {same}" if same else text


def sources_of(kernels: Sequence[Kernel], registry: Registry) -> frozenset[str]:
    """Return hashes of the sources of kernels: each kernel's own text or, for a backend that lists
    its kernel sources (CUDA files), the contents of those."""
    found = set()
    for kernel in kernels:
        files = registry.backend(kernel.backend).sources()
        texts = [path.read_bytes() for path in files.values()] or [source_text(kernel)]
        found |= {hashlib.sha256(text).hexdigest() for text in texts}
    return frozenset(found)


def vote_on(sides: Iterable[Side], expected: Mapping[str, Expected], tolerance: Tolerance,
            registry: Registry) -> Vote:
    """Return the vote of a call's sides and the reference. A kernel has no second vote."""
    first: dict[str, Side] = {}
    for side in sides:
        first.setdefault(side.label, side)
    every = [Voter(label, s.results, sources_of(s.kernels, registry)) for label, s in first.items()]
    reference = {k: e.rounded for k, e in expected.items()}
    return take_vote([*every, Voter(REFERENCE, reference, frozenset([REFERENCE]))],
                     {k: budget_of(e, tolerance) for k, e in expected.items()})


def take_vote(voters: Sequence[Voter], budgets: Mapping[str, Budget]) -> Vote:
    """Group the voters by agreement, each result within twice its budget: one for either side.

    Voters that share a source have one vote together. A group needs more votes than any other.
    """
    groups: list[list[Voter]] = []
    for voter in voters:
        home = next((g for g in groups if all(_agree(voter, v, budgets) for v in g)), None)
        if home is None:
            groups.append([voter])
        else:
            home.append(voter)
    families = _families(voters)
    counts = [len({families[v.name] for v in g}) for g in groups]
    best = max(counts)
    winners = [g for g, n in zip(groups, counts, strict=True) if n == best]
    majority = winners[0] if len(winners) == 1 and (best > 1 or len(groups) == 1) else []
    outliers = [v for v in voters if v not in majority] if majority else []
    shared = [tuple(v.name for v in voters if families[v.name] == f)
              for f in dict.fromkeys(families.values())]
    return Vote(len(set(families.values())), tuple(v.name for v in majority),
                tuple(v.name for v in outliers), tuple(s for s in shared if len(s) > 1))


def _agree(a: Voter, b: Voter, budgets: Mapping[str, Budget]) -> bool:
    return all(judge(a.results[k], b.results[k], as_dtype(b.results[k].dtype), budget * 2).ok
               for k, budget in budgets.items() if k in a.results and k in b.results)


def _families(voters: Sequence[Voter]) -> dict[str, str]:
    """Map each voter to the first voter whose sources it shares, directly or by another."""
    family = {v.name: v.name for v in voters}
    for a in voters:
        for b in voters:
            if a.sources & b.sources and family[a.name] != family[b.name]:
                old, new = family[b.name], family[a.name]
                family = {k: new if f == old else f for k, f in family.items()}
    return family
