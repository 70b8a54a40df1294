"""Compares our answers with another side's: logits, greedy tokens, and every layer's output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.errors import InputError
from core.tensor.dtype import DType
from core.tensor.tensor import Array
from models.analysis.answers import Answers
from models.analysis.pairs import NEAR_TIE, NEAR_TIE_ULPS


@dataclass(frozen=True)
class Parity:
    """Holds the differences, relative to the other side's largest value of the logits or the layer.

    `bound` is what rounding may change in the logits; `parting` is the first greedy token that
    differs, and `gap` how far ahead of theirs our choice is in our logits for that place.
    """

    who: str
    logits: float
    bound: float
    kl: float
    layers: list[float] | None
    parting: int | None
    tokens: int
    gap: float | None

    @property
    def near_tie(self) -> bool:
        return self.gap is not None and self.gap <= self.bound

    @property
    def ok(self) -> bool:
        return self.logits <= self.bound and (self.parting is None or self.near_tie)

    @property
    def first_bad_layer(self) -> int | None:
        """The first of `layers` beyond the bound (0 is the embedding)."""
        return next((i for i, d in enumerate(self.layers or []) if not d <= self.bound), None)

    def to_json(self) -> dict[str, Any]:
        return {"against": self.who, "logits_max_rel": self.logits, "bound": self.bound,
                "kl": self.kl, "layers_max_rel": self.layers, "parting": self.parting,
                "tokens_compared": self.tokens, "gap": self.gap, "near_tie": self.near_tie,
                "first_bad_layer": self.first_bad_layer, "ok": self.ok}


def compare_answers(mine: Answers, theirs: Answers, activations: DType,
                    logits_after: Callable[[list[int]], Array]) -> Parity:
    """Compare two sides. `logits_after` gives our logits [V] after the prompt and these tokens.

    Raises InputError where the two have different prompts or vocabularies.
    """
    if mine.ids != theirs.ids:
        raise InputError(f"{theirs.who} was given the tokens {theirs.ids[:8]}…, this run "
                         f"{mine.ids[:8]}…; expected the same prompt and tokenizer")
    if mine.logits.shape != theirs.logits.shape:
        raise InputError(f"{theirs.who} has logits {list(theirs.logits.shape)}, this model "
                         f"{list(mine.logits.shape)}; expected the same vocabulary")
    layers = None
    if mine.hidden is not None and theirs.hidden is not None:
        if mine.hidden.shape != theirs.hidden.shape:
            raise InputError(f"{theirs.who} has hidden states {list(theirs.hidden.shape)}, this "
                             f"model {list(mine.hidden.shape)}")
        layers = [_relative(a, b) for a, b in zip(mine.hidden, theirs.hidden, strict=True)]
    pairs = list(zip(mine.tokens, theirs.tokens, strict=False))
    parting = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
    gap = None
    if parting is not None:  # both sides saw the same tokens up to here
        last = logits_after(mine.tokens[:parting]).astype(np.float64)
        ours, other = pairs[parting]
        gap = float(last[ours] - last[other]) / float(np.abs(last).max())
    bound = max(NEAR_TIE, NEAR_TIE_ULPS * activations.eps if activations.itemsize == 2 else 0)
    return Parity(theirs.who, _relative(mine.logits, theirs.logits), bound,
                   _kl(theirs.logits, mine.logits), layers, parting, len(pairs), gap)


def _relative(a: Array, b: Array) -> float:
    difference = float(np.abs(a.astype(np.float64) - b).max(initial=0.0))
    return difference / (float(np.abs(b).max(initial=0.0)) or 1.0)


def _kl(p: Array, q: Array) -> float:
    """Return the mean over tokens of KL(p ‖ q), in nats; p and q are given as logits."""
    a, b = (x - x.max(axis=-1, keepdims=True) for x in (p.astype(np.float64), q.astype(np.float64)))
    a, b = (x - np.log(np.exp(x).sum(axis=-1, keepdims=True)) for x in (a, b))
    return float((np.exp(a) * (a - b)).sum(axis=-1).mean())
