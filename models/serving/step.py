"""Defines what a step computes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from models.serving.request import Request


class Work(NamedTuple):
    """Names the tokens of one request in a step: positions start to start + tokens - 1.

    Ids at positions that `request.ids` lacks were sampled by a step in flight: there is one at
    most, the token sampled last. `samples`: the logits after the last position give a token.
    """

    request: Request
    start: int
    tokens: int
    samples: bool


@dataclass
class Step:
    """Holds what a step computes. Numbers start at 1; a step without work is not to be run."""

    number: int
    work: list[Work] = field(default_factory=list)
    preempted: list[Request] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        return sum(work.tokens for work in self.work)


class Budget:
    """Divides the tokens of a step among prompts, `left` of `total` in all.

    While others wait, the long prompts, of more than half of `total`, get half of the tokens
    together, in order; so short ones among the others need not wait for them.
    """

    def __init__(self, total: int, left: int) -> None:
        self.left = left
        self._long, self._half = total // 2, (left + 1) // 2

    def offer(self, remaining: int, others: bool) -> int:
        """Return how many of its `remaining` tokens a prompt may compute."""
        half = others and remaining > self._long
        return min(remaining, self._half if half else self.left, self.left)

    def spend(self, tokens: int, remaining: int) -> None:
        """Note that a prompt of `remaining` tokens computes so many."""
        self.left -= tokens
        if remaining > self._long:
            self._half = max(0, self._half - tokens)
