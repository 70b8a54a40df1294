"""Prints what models.verify finds: divergence, tokens, faults, bisection, layers, replays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from core.output import escaped
from core.verify.bisect import Bisection
from core.verify.capsules.capsule import Capsule
from core.verify.capsules.replay import Replayed
from models.analysis.answers import Answers
from models.analysis.pairs import Pair, Pairs, Parting
from models.analysis.parity import Parity
from models.cli.console import tell


def pairs(found: Pairs) -> None:
    """Print the pairs of free runs, then what was wrong from the same inputs."""
    for pair in found.pairs:
        _pair(pair, found)
    for name, tally in found.checks.items():
        _say(f"from the same inputs, {name} by {', '.join(tally.against)}: {tally.calls} "
              f"comparisons, {tally.wrong} with something wrong (ledger {found.ledgers[name]}): "
              f"{tally}")
        for text in tally.notes:
            _say(text)
    for (op, kernel), count in found.faults.items():
        rows = [r for t in found.checks.values() for r in t.rows if (op, kernel) in r.faults]
        # one in which it is named alone, where there is one
        row = min(rows, key=lambda r: len(r.faults))
        _say(f"WRONG: {kernel} ({op}) in {count} calls, first at node {row.reason}"
             + (f"; vote: {row.vote}" if row.vote else ""))
        _say(f"  {row.coverage.which}; seen: {row.coverage.seen()}")
    skipped = sorted({text for t in found.checks.values() for text in t.skipped})
    if skipped:
        _say(f"not compared: {', '.join(skipped)}")
    for path in found.capsules:
        _say(f"capsule: {path}")
    _say("verdict: every kernel is within its budget" if found.ok else
          "verdict: a kernel is WRONG" if found.faults else "verdict: nothing was compared")


def _pair(pair: Pair, found: Pairs) -> None:
    _say(f"{pair.a} and {pair.b}, running freely: logits differ by {pair.distance:.2e} of the "
          "largest")
    at = pair.divergence
    if at is None:
        _say("  no difference: every value has equal bits")
    else:
        layer = "" if at.layer is None else f"layer {at.layer}, "
        used = ", ".join(f"{name} uses {share:.2f} of the budget"
                         for name, (_, share) in pair.verdicts.items())
        _say(f"  first divergence: {layer}node {at.a.node} ({at.phase}, run {at.run}), op "
              f"{at.a.op}, `{at.a.result}`{list(at.index)}, {at.elements} elements differ")
        _say(f"    {at.a.kernel}: {at.values[0]:.9g}\n    {at.b.kernel}: {at.values[1]:.9g}\n"
              f"    reference: {'unknown' if pair.reference is None else f'{pair.reference:.9g}'}")
        _say(f"    it is {'a FAULT' if pair.fault else 'rounding'}: {used}")
    if pair.parting is None:
        _say(f"  the {len(found.tokens[pair.a])} tokens are equal")
    else:
        _parting(pair, pair.parting)
    if pair.blame is not None:
        _blame(pair.blame, found)


def _parting(pair: Pair, at: Parting) -> None:
    _say(f"  tokens part at {at.position}: {pair.a} samples {at.tokens[0]}, ahead by "
          f"{at.gaps[0]:.4g}; {pair.b} samples {at.tokens[1]}, ahead by {at.gaps[1]:.4g} in its "
          f"own logits: " + (f"a near tie (within {at.bound:.2g}, which rounding can decide)"
                         if at.near_tie else f"no near tie (that is within {at.bound:.2g})"))


def _blame(blame: Bisection, found: Pairs) -> None:
    if not blame.total:
        _say("  blame: nothing differs when the kernels change hands")
        return
    guilty = blame.guilty(found.faults)
    names = "; ".join(f"{op}: {mine} or {theirs}" for op, mine, theirs in blame.kernels)
    _say(f"  blame: {len(blame.nodes)} nodes carry {blame.carried / blame.total:.0%} of the "
          f"difference of {blame.total:.2e} ({blame.runs} runs): {', '.join(blame.nodes)}")
    _say(f"    kernels that change hands there: {names}")
    _say("    wrong by the definition: " + (", ".join(f"{kernel} ({op})" for op, kernel in guilty)
                                             or "none, so the difference is rounding"))


def against(found: Parity, mine: Answers) -> None:
    """Print the result of --against: layer by layer, then logits and tokens."""
    if found.layers is not None:
        _say(f"{mine.who} against {found.who}: largest difference, relative to the largest value")
        for i, d in enumerate(found.layers):
            name = "embedding" if i == 0 else ("final norm" if i == len(found.layers) - 1
                                               else f"layer {i - 1}")
            mark = "  first beyond the bound" if i == found.first_bad_layer else ""
            _say(f"  {name:12} {d:.2e}{mark}")
    else:
        tell("no hidden states to compare")
    _say(f"logits: {found.logits:.2e} of the largest (bound {found.bound:.0e}), KL "
          f"{found.kl:.2e} nats")
    if found.parting is None:
        _say(f"greedy tokens: {found.tokens} of {found.tokens} equal")
    else:
        gap = "" if found.gap is None else f", a gap of {found.gap:.2e} of the largest logit"
        _say(f"greedy tokens: part at {found.parting} of {found.tokens}{gap}"
              + (": a near tie" if found.near_tie else ""))
    _say("verdict: equal up to rounding" if found.ok else "verdict: DIFFERENT")


def replayed(capsule: Capsule, done: Sequence[Replayed]) -> None:
    """Print the result of --replay: the capsule's origin, then a line for each result."""
    _say(f"{capsule.op} at node {capsule.entry.get('node')}: {capsule.reason}")
    for r in done:
        if r.refused:
            _say(f"{r.label}: not computed: {r.refused}")
        for key, v in r.verdicts.items():
            same = "" if r.who.startswith("recorded") else (
                ", the recorded bits" if r.same_bits else ", other bits than recorded")
            _say(f"{r.label}: `{key}` {'ok' if v.ok else 'WRONG'}{same}: {v}")
        for text in r.broken:
            _say(f"{r.label}: WRONG: {text}")
        for text in r.notes:
            _say(f"{r.label}: note: {text}")


def replayed_json(capsule: Capsule, done: Sequence[Replayed]) -> dict[str, Any]:
    return {"op": capsule.op, "entry": capsule.entry, "reason": capsule.reason,
            "versions": capsule.versions, "source": capsule.source,
            "ok": all(r.ok for r in done[1:]),
            "results": [{"who": r.who, "kernel": r.kernel, "ok": r.ok,
                         "same_bits": r.same_bits, "refused": r.refused,
                         "broken": r.broken, "notes": r.notes, "runs": r.runs,
                         "budget_used": {k: v.used for k, v in r.verdicts.items()}}
                        for r in done]}


def _say(text: str) -> None:
    """Print a line; names and reasons in it may come from a file or a plugin."""
    print(escaped(text))
