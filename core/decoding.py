"""What a step of decoding is: which graph it needs, how it draws, and who may watch it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from core.plan import Plan


@dataclass(frozen=True)
class GraphKind:
    """Which graph a step needs.

    head      logits of no token, the last one, or all
    sampling  what follows: nothing, `argmax`, `sample`, or `sample_seen` (with repetition penalty)
    loop      whether the step has one token a sequence, and advances to the next by itself
    """

    head: str
    sampling: str = "none"
    loop: bool = False
    block_size: int = 16


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn; see `core.ops.sampling.Sample` for the exact order.

    temperature 0 is greedy. top_k 0, top_p 1, min_p 0 and repetition_penalty 1 are off.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0

    @property
    def kind(self) -> str:
        if self.repetition_penalty != 1.0:
            return "sample_seen"
        return "argmax" if self.temperature == 0 else "sample"


class Observer(Protocol):
    """Runs a plan step by step in place of `Plan.run`: to check, trace or profile it."""

    def run(self, plan: Plan) -> None: ...
