"""Runs two or more backends on one prompt: shows where they part, who is wrong, and what carries
it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import OptionError
from core.plan.opinion import Opinion
from core.plugins.registry import Registry
from core.tensor.dtype import as_dtype
from core.verify.blame import Blame, Outcome, find_blame
from core.verify.crosscheck import CrossCheck
from core.verify.recorder import Recorder
from core.verify.trace import Catch, Divergence, Made, Trace, first_divergence
from models.analysis.prompt_run import Play, open_opinion
from models.engine.model import Model

#: A gap of logits below this share of the largest one is a near tie: rounding through the layers of
#: a float32 model moves logits by less (the bound of our parity with transformers); 16-bit
#: activations by some eight of their ULPs.
NEAR_TIE, NEAR_TIE_ULPS = 1e-4, 8


@dataclass(frozen=True)
class Parting:
    """Describes the token at which greedy outputs part: which token each side sampled, how far
    ahead of the other's choice it was in its own logits, and the near tie's bound in the same
    units."""

    position: int
    tokens: tuple[int, int]
    gaps: tuple[float, float]
    bound: float

    @property
    def near_tie(self) -> bool:
        return max(self.gaps) <= self.bound


@dataclass
class Pair:
    """Holds what free runs of the first opinion and another one show."""

    a: str
    b: str
    distance: float
    divergence: Divergence | None = None
    verdicts: dict[str, tuple[bool, float]] = field(default_factory=dict)
    reference: float | None = None
    parting: Parting | None = None
    blame: Blame | None = None

    @property
    def fault(self) -> bool:
        return any(not ok for ok, _ in self.verdicts.values())


@dataclass
class Contest:
    """Holds the whole result. `faults` are (op, kernel) -> calls that the reference found wrong."""

    opinions: list[str]
    ids: list[int]
    ledgers: dict[str, str]
    tokens: dict[str, list[int]]
    pairs: list[Pair]
    checks: dict[str, CrossCheck]
    capsules: list[Path]

    @property
    def faults(self) -> dict[tuple[str, str], int]:
        found: dict[tuple[str, str], int] = {}
        for check in self.checks.values():
            for key, count in check.faults().items():
                found[key] = max(found.get(key, 0), count)
        return found

    @property
    def ok(self) -> bool:
        return all(c.ok for c in self.checks.values())

    def to_json(self) -> dict[str, Any]:
        return {
            "opinions": self.opinions, "prompt_tokens": self.ids, "ledgers": self.ledgers,
            "tokens": self.tokens, "ok": self.ok, "pairs": [_pair_json(p) for p in self.pairs],
            "faults": [{"op": op, "kernel": kernel, "calls": n}
                       for (op, kernel), n in self.faults.items()],
            "checks": {name: [r.to_json() for r in c.rows] for name, c in self.checks.items()},
            "capsules": [str(p) for p in self.capsules]}


def hold(path: str, opinions: Sequence[Opinion], play: Play, registry: Registry, *,
         blame: bool, recorder: Recorder, options: Mapping[str, Any]) -> Contest:
    """Run every opinion freely, then check each one's kernels by all the others.

    Raises OptionError without two opinions of which one can run a model.
    """
    runners = [o for o in opinions if o.selector is not None]
    if len(opinions) < 2 or not runners or len({o.name for o in opinions}) < len(opinions):
        raise OptionError("verify compares two or more different opinions, at least one of them a "
                          "backend: such as `cpu_numpy cpu_numba,cpu_numpy` or `cpu_numpy "
                          "reference`")
    contest = Contest([o.name for o in opinions], list(play.ids), {}, {}, [], {}, recorder.written)
    traces: dict[str, Trace] = {}
    outcomes: dict[str, Outcome] = {}
    with open_opinion(path, runners[0], registry, **options) as first:
        for opinion in runners:
            model = first if opinion is runners[0] else open_opinion(path, opinion, registry,
                                                                     **options)
            try:
                name, trace = opinion.name, Trace()
                outcomes[name], traces[name] = play.on(model)(trace), trace
                others = [o for o in opinions if o is not opinion]
                contest.checks[name] = CrossCheck(registry, others, recorder=recorder)
                play.on(model)(contest.checks[name])
                contest.ledgers[name] = model.ledger.hash
                contest.tokens[name] = outcomes[name].tokens
                if opinion is not runners[0]:
                    contest.pairs.append(_pair(runners[0], opinion, first, model, play, traces,
                                               outcomes))
                    if blame:
                        contest.pairs[-1].blame = find_blame(play.on(first), opinion)
            finally:
                if model is not first:
                    model.close()
    return contest


def _pair(a: Opinion, b: Opinion, first: Model, second: Model, play: Play,
          traces: dict[str, Trace], outcomes: dict[str, Outcome]) -> Pair:
    x, y = outcomes[a.name], outcomes[b.name]
    pair = Pair(a.name, b.name, x.distance(y), first_divergence(traces[a.name], traces.pop(b.name)))
    if pair.divergence is not None:
        _judge(pair, pair.divergence, first, second, play)
    pair.parting = _parting(x, y, first)
    return pair


def _judge(pair: Pair, at: Divergence, first: Model, second: Model, play: Play) -> None:
    """Hold either side's call to the definition, each from its own inputs."""
    for name, model, made in ((pair.a, first, at.a), (pair.b, second, at.b)):
        catch = Catch(at.run, made.node)
        play.on(model)(catch)
        if catch.verdict is not None:
            pair.verdicts[name] = catch.verdict.ok, catch.verdict.used
        if name == pair.a and made.result in catch.reference:
            pair.reference = float(catch.reference[made.result][at.index])


def _parting(x: Outcome, y: Outcome, model: Model) -> Parting | None:
    place = next((i for i, (s, t) in enumerate(zip(x.tokens, y.tokens, strict=False)) if s != t),
                 None)
    if place is None:
        return None
    mine, theirs = (o.logits[place].reshape(-1).astype(np.float64) for o in (x, y))
    s, t = x.tokens[place], y.tokens[place]
    embed = model.session.decoder.steps[0].results["out"].dtype
    share = max(NEAR_TIE, NEAR_TIE_ULPS * as_dtype(embed).eps if embed.itemsize == 2 else 0)
    return Parting(place, (s, t), (float(mine[s] - mine[t]), float(theirs[t] - theirs[s])),
                   share * float(np.abs(mine).max()))


def _pair_json(pair: Pair) -> dict[str, Any]:
    at, blame = pair.divergence, pair.blame
    return {
        "a": pair.a, "b": pair.b, "distance": pair.distance,
        "first_divergence": None if at is None else {
            "run": at.run, "phase": at.phase, "value": at.name, "layer": at.layer,
            "a": _made_json(at.a), "b": _made_json(at.b), "index": list(at.index),
            "values": list(at.values), "reference": pair.reference, "elements": at.elements,
            "verdict": "fault" if pair.fault else "rounding",
            "budget_used": {k: used for k, (_, used) in pair.verdicts.items()}},
        "parting": None if pair.parting is None else {
            **asdict(pair.parting), "near_tie": pair.parting.near_tie},
        "blame": None if blame is None else asdict(blame)}


def _made_json(made: Made) -> dict[str, str]:
    return {"node": made.node, "op": made.op, "kernel": made.kernel}
