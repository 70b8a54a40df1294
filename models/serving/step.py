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


@dataclass(slots=True)
class Step:
    """Holds what a step computes. Numbers start at 1; a step without work is not to be run.

    decodes  requests of which it computes one token, after which each samples; `starts` are the
             positions. They come before `prompts`
    prompts  the work of other requests
    grown    rows of `decodes` that have got a block for it
    prompt_tokens  how many of the tokens belong to prompts
    """

    number: int
    decodes: list[Request] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    prompts: list[Work] = field(default_factory=list)
    preempted: list[Request] = field(default_factory=list)
    grown: list[int] = field(default_factory=list)
    prompt_tokens: int = 0

    @property
    def work(self) -> list[Work]:
        """List the work of all requests in order."""
        return [*(Work(request, start, 1, True) for request, start in zip(
            self.decodes, self.starts, strict=True)), *self.prompts]

    @property
    def sampling(self) -> list[Request]:
        """List the requests that get a token, in order."""
        if not self.prompts:
            return self.decodes
        return [*self.decodes, *(work.request for work in self.prompts if work.samples)]

    @property
    def tokens(self) -> int:
        return len(self.decodes) + sum(work.tokens for work in self.prompts)

    def add(self, request: Request, tokens: int) -> None:
        """Compute so many more tokens of a request, and sample where they are its last."""
        start, end = request.computed, request.computed + tokens
        samples = end == request.total
        self.prompts.append(Work(request, start, tokens, samples))
        self.prompt_tokens += max(0, min(end, request.prompt_len) - start)
        request.computed, request.last_step = end, self.number
        request.total += samples

    def __bool__(self) -> bool:
        """Tell whether there is anything to compute."""
        return bool(self.decodes or self.prompts)


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
