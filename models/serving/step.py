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
