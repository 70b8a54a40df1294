"""Runs a prompt under an observer: the same tokens in, logits and sampled tokens out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from core.plan.plan import Plan
from core.plan.policy import KernelPolicy
from core.runtime.step import Observer, Sampling
from core.tensor.tensor import Array
from core.verify.bisect import Outcome
from models.engine.load import load
from models.engine.model import Model
from models.engine.options import LoadOptions


@dataclass(frozen=True)
class PromptRun:
    """Holds what every policy is given: the prompt's ids, how many tokens to sample, and how."""

    ids: Sequence[int]
    tokens: int
    sampling: Sampling

    def on(self, model: Model) -> Callable[[Observer], Outcome]:
        """Return a function that runs it from an empty cache under an observer."""
        session = model.session

        def run(observer: Observer) -> Outcome:
            reader = _Reader(observer)
            with session.observed(reader):
                session.truncate(0)
                session.sample_with(self.sampling, self.ids)
                session.prefill(self.ids)
                sampled = [session.token]
                while len(sampled) < self.tokens and session.length < session.max_context:
                    sampled.append(session.step())
            return Outcome(reader.logits, sampled, self.sampling.temperature == 0)
        return run


class _Reader:
    """Runs another observer, and keeps the logits that each token is sampled from."""

    def __init__(self, inner: Observer) -> None:
        self.inner = inner
        self.logits: list[Array] = []

    def run(self, plan: Plan) -> None:
        self.inner.run(plan)
        if "logits" in plan.graph.outputs:
            self.logits.append(np.array(plan.output("logits").numpy()))


def open_with(path: str | Path, policy: KernelPolicy, options: LoadOptions) -> Model:
    """Load a model with the kernels that a policy prefers, besides those that `options` name."""
    chosen = replace(options, backend=policy.backends, fusion=policy.fusion and options.fusion,
                     kernels=[*options.kernels, *(o.text for o in policy.overrides)])
    return load(path, chosen, registry=policy.registry)
