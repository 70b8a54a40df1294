"""Simulates an engine without a model: it drives a scheduler and notices each wrong read.

The simulated cache holds for each position of each block a hash of all ids up to it. A token is a
hash of all that a row reads through its blocks, so a request gets the tokens of `expected` only if
nothing overwrote, mixed up or left out a position of it.
"""

import zlib
from array import array
from collections import deque
from collections.abc import Sequence

from core.runtime.kv_cache import BlockPool
from models.serving.params import SamplingParams
from models.serving.request import Request
from models.serving.scheduler import Scheduler
from models.serving.step import Step

VOCABULARY = 97
EOS = 5


def state_of(before: int, token: int) -> int:
    """Return what the cache holds of a token after those whose last state is `before`."""
    return zlib.crc32(token.to_bytes(4, "little"), before)


def token_of(states: Sequence[int]) -> int:
    """Return the token that follows all states of a sequence."""
    return zlib.crc32(array("q", states).tobytes()) % VOCABULARY


def expected(request: Request) -> list[int]:
    """Return the tokens that a request has when it ends by itself."""
    states, output = [0], list[int]()
    for i in request.ids[:request.prompt_len]:
        states.append(state_of(states[-1], i))
    while len(output) < request.limit - request.prompt_len:
        output.append(token_of(states[1:]))
        states.append(state_of(states[-1], output[-1]))
        if output[-1] in request.stop_ids:
            break
    return output


def make_request(name: str, prompt: Sequence[int], max_tokens: int | None = 16, *,
                 salt: str = "", needs_token: bool = False, **params: object) -> Request:
    return Request(name, prompt, SamplingParams(max_tokens=max_tokens, **params),
                   eos_ids=frozenset({EOS}), salt=salt, needs_token=needs_token)


def make_scheduler(blocks: int = 64, block_size: int = 4, *, caching: bool = True,
                   max_num_seqs: int = 8, max_num_batched_tokens: int = 32,
                   max_model_len: int = 64, **limits: int) -> Scheduler:
    return Scheduler(BlockPool(blocks, block_size, caching), max_num_seqs=max_num_seqs,
                     max_num_batched_tokens=max_num_batched_tokens, max_model_len=max_model_len,
                     **limits)


class SimulatedEngine:
    """Runs a scheduler's steps with up to `depth` of them in flight.

    computed  tokens that all steps have computed
    steps     steps with work
    """

    def __init__(self, scheduler: Scheduler, depth: int = 1) -> None:
        self.scheduler, self.depth = scheduler, depth
        self.cache: dict[int, int] = {}
        self.last: dict[int, int] = {}
        self.flight: deque[tuple[Step, list[tuple]]] = deque()
        self.computed = self.steps = 0

    def step(self) -> Step:
        """Queue one step; complete the oldest where `depth` are in flight or there is no work."""
        step = self.scheduler.schedule()
        if step.work:
            self._queue(step)
        elif not self.flight:
            assert not self.scheduler.has_unfinished, "nothing to compute, nothing in flight"
        if self.flight and (len(self.flight) >= self.depth or not step.work):
            self.complete()
        return step

    def run(self) -> None:
        """Run until every request has ended and no step is in flight."""
        while self.scheduler.has_unfinished or self.flight:
            self.step()

    def _queue(self, step: Step) -> None:
        size, rows = self.scheduler.pool.block_size, []
        assert step.tokens <= self.scheduler.max_num_batched_tokens
        assert len({work.request for work in step.work}) == len(step.work)
        for request, start, tokens, samples in step.work:
            known = request.ids[start:start + tokens]
            assert len(known) == tokens or (tokens == 1 and samples), "one unknown id at most"
            written = set(request.blocks[start // size:(start + tokens - 1) // size + 1])
            for _, others in self.flight:
                assert not any(written & set(blocks) for other, _, _, _, blocks, _, _ in others
                               if other is not request), "a step in flight names this block"
            rows.append((request, start, tokens, known, list(request.blocks), request.slot,
                         samples))
            self.computed += tokens
        self.flight.append((step, rows))
        self.steps += 1
        self.scheduler.queued(step)

    def complete(self) -> list[Request]:
        """Run the oldest step in flight; return the requests that got a token."""
        size, tokens = self.scheduler.pool.block_size, []
        step, rows = self.flight.popleft()
        for _, start, count, known, blocks, slot, samples in rows:
            slots = [blocks[p // size] * size + p % size for p in range(start + count)]
            for position, i in enumerate(known or [self.last[slot]], start):
                before = self.cache[slots[position - 1]] if position else 0
                self.cache[slots[position]] = state_of(before, i)
            if samples:
                self.last[slot] = token_of([self.cache[s] for s in slots])
                tokens.append(self.last[slot])
        return self.scheduler.update(step, tokens)
