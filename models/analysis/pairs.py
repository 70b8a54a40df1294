"""Compares backends on one prompt: where they part, who is wrong, and which kernels carry it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import OptionError
from core.installed.registry import Registry
from core.tensor.dtype import as_dtype
from core.verify.bisect import Bisection, Outcome, bisect
from core.verify.capsules.recorder import Recorder
from core.verify.crosscheck import CrossCheck
from core.verify.policies import parse_policy
from core.verify.trace import Divergence, Probe, Recorded, Trace, first_divergence
from core.verify.verdict import Fault, Tally
from models.analysis.prompt_run import PromptRun, open_with
from models.engine.model import Model
from models.engine.options import LoadOptions

#: A gap of logits below this share of the largest one is a near tie. Rounding through the layers of
#: a float32 model moves logits by less (the bound of our parity with transformers), and 16-bit
#: activations move them by some eight of their ULPs.
NEAR_TIE, NEAR_TIE_ULPS = 1e-4, 8


@dataclass(frozen=True)
class Parting:
    """Shows the token at which outputs part: what each side sampled, how far ahead of the other's
    choice it was in its own logits, and the near tie's bound in the same units."""

    position: int
    tokens: tuple[int, int]
    gaps: tuple[float, float]
    bound: float

    @property
    def near_tie(self) -> bool:
        return max(self.gaps) <= self.bound


@dataclass
class Pair:
    """Holds what free runs of the first policy and another one show."""

    a: str
    b: str
    distance: float
    divergence: Divergence | None = None
    verdicts: dict[str, tuple[bool, float]] = field(default_factory=dict)
    reference: float | None = None
    parting: Parting | None = None
    blame: Bisection | None = None

    @property
    def fault(self) -> bool:
        return any(not ok for ok, _ in self.verdicts.values())


@dataclass
class Pairs:
    """Holds the whole result; runs and checks are by the policy's text."""

    policies: list[str]
    ids: list[int]
    ledgers: dict[str, str]
    tokens: dict[str, list[int]]
    pairs: list[Pair]
    checks: dict[str, Tally]
    capsules: list[Path]

    @property
    def faults(self) -> dict[Fault, int]:
        """Count the calls in which each (op, kernel) was wrong by the reference."""
        found: dict[Fault, int] = {}
        for tally in self.checks.values():
            for key, count in tally.faults().items():
                found[key] = max(found.get(key, 0), count)
        return found

    @property
    def ok(self) -> bool:
        return all(t.ok for t in self.checks.values())

    def to_json(self) -> dict[str, Any]:
        return {
            "opinions": self.policies, "prompt_tokens": self.ids, "ledgers": self.ledgers,
            "tokens": self.tokens, "ok": self.ok, "pairs": [_pair_json(p) for p in self.pairs],
            "faults": [{"op": op, "kernel": kernel, "calls": n}
                       for (op, kernel), n in self.faults.items()],
            "checks": {name: [r.to_json() for r in t.rows] for name, t in self.checks.items()},
            "capsules": [str(p) for p in self.capsules]}


def compare_policies(path: str, texts: Sequence[str], prompt: PromptRun, registry: Registry, *,
                     blame: bool, recorder: Recorder, options: LoadOptions) -> Pairs:
    """Run every policy freely, then check each one's kernels by all the others.

    Raises OptionError without two policies of which one can run a model.
    """
    policies = {text: parse_policy(text, registry) for text in texts}
    runners = {text: policy for text, policy in policies.items() if policy is not None}
    if len(texts) < 2 or not runners or len(policies) < len(texts):
        raise OptionError("verify compares two or more different BACKENDS, at least one of them a "
                          "backend: such as `cpu_numpy cpu_numba,cpu_numpy` or `cpu_numpy "
                          "reference`")
    found = Pairs(list(texts), list(prompt.ids), {}, {}, [], {}, recorder.written)
    traces: dict[str, Trace] = {}
    outcomes: dict[str, Outcome] = {}
    start, *_ = runners
    with open_with(path, runners[start], options) as first:
        for name, policy in runners.items():
            model = first if name == start else open_with(path, policy, options)
            try:
                trace, others = Trace(), [text for text in texts if text != name]
                outcomes[name], traces[name] = prompt.on(model)(trace), trace
                check = CrossCheck(registry, others, recorder=recorder)
                prompt.on(model)(check)
                found.checks[name] = check.tally
                found.ledgers[name] = model.ledger.hash
                found.tokens[name] = outcomes[name].tokens
                if model is not first:
                    pair = Pair(start, name, outcomes[start].distance(outcomes[name]),
                                first_divergence(traces[start], traces.pop(name)))
                    if pair.divergence is not None:
                        _judge(pair, pair.divergence, first, model, prompt)
                    pair.parting = _parting(outcomes[start], outcomes[name], first)
                    pair.blame = bisect(prompt.on(first), policy) if blame else None
                    found.pairs.append(pair)
            finally:
                if model is not first:
                    model.close()
    return found


def _judge(pair: Pair, at: Divergence, first: Model, second: Model, prompt: PromptRun) -> None:
    """Judge each side's call at the first divergence by the reference, from its own inputs."""
    for name, model, value in ((pair.a, first, at.a), (pair.b, second, at.b)):
        probe = Probe(at.run, value.node)
        prompt.on(model)(probe)
        if probe.verdict is not None:
            pair.verdicts[name] = probe.verdict.ok, probe.verdict.used
        if name == pair.a and value.result in probe.reference:
            pair.reference = float(probe.reference[value.result][at.index])


def _parting(x: Outcome, y: Outcome, model: Model) -> Parting | None:
    place = next((i for i, (s, t) in enumerate(zip(x.tokens, y.tokens, strict=False)) if s != t),
                 None)
    if place is None:
        return None
    mine, theirs = (o.logits[place].reshape(-1).astype(np.float64) for o in (x, y))
    s, t = x.tokens[place], y.tokens[place]
    embed = model.activations
    share = max(NEAR_TIE, NEAR_TIE_ULPS * as_dtype(embed).eps if embed.itemsize == 2 else 0)
    return Parting(place, (s, t), (float(mine[s] - mine[t]), float(theirs[t] - theirs[s])),
                   share * float(np.abs(mine).max()))


def _pair_json(pair: Pair) -> dict[str, Any]:
    at, blame = pair.divergence, pair.blame
    return {
        "a": pair.a, "b": pair.b, "distance": pair.distance,
        "first_divergence": None if at is None else {
            "run": at.run, "phase": at.phase, "value": at.name, "layer": at.layer,
            "a": _recorded_json(at.a), "b": _recorded_json(at.b), "index": list(at.index),
            "values": list(at.values), "reference": pair.reference, "elements": at.elements,
            "verdict": "fault" if pair.fault else "rounding",
            "budget_used": {k: used for k, (_, used) in pair.verdicts.items()}},
        "parting": None if pair.parting is None else {
            **asdict(pair.parting), "near_tie": pair.parting.near_tie},
        "blame": None if blame is None else asdict(blame)}


def _recorded_json(value: Recorded) -> dict[str, str]:
    return {"node": value.node, "op": value.op, "kernel": value.kernel}
