"""Decides what each step computes: pure bookkeeping, without tensors, text or a clock."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from operator import attrgetter

from core.errors import LifetimeError, OptionError, PromptError, QueueFullError
from core.runtime.kv_cache import BlockPool
from models.serving.holdings import Holdings
from models.serving.request import Request, Status
from models.serving.step import Budget, Step

PARTIAL = 4      # prompts that may be half computed at a time
PASSES = 8       # later requests that may be admitted before one that does not fit
PREEMPTIONS = 3  # after so many, a request comes back only where nothing older can push it out

_order = attrgetter("order")


class Scheduler:
    """Chooses the work of each step, within one budget of tokens.

    For each step: `schedule`, queue its work, `queued(step)`; once its tokens are known,
    `update(step, tokens)`, in the order of the steps. Several steps may be in flight: lengths are
    counted as if each step had succeeded. A token for a request that has ended is thrown away.

    Requests are served in order of priority (lower first), then arrival. A step computes
    1. a token of every running sequence. Where blocks are lacking, the last in order is preempted,
       never the first; it is computed again later;
    2. prompts that are half computed, at most PARTIAL; while others wait, long ones get at most
       half of what is left, and what the others leave over;
    3. waiting requests, from their longest cached prefix on. One is admitted when the blocks for
       all of its tokens and one for each running sequence are free, and nothing was preempted in
       this step. One without blocks may be passed by at most PASSES smaller ones. One whose next
       block is being computed for another waits for that, and shares it.
    A request of equal priority to all others is preempted at most PREEMPTIONS times.

    max_model_len  positions of a sequence; the token sampled after the last one needs none
    max_waiting    length of the queue that new requests may fill
    """

    def __init__(self, pool: BlockPool, *, max_num_seqs: int, max_num_batched_tokens: int,
                 max_model_len: int, max_waiting: int = 8192) -> None:
        if not 1 <= max_num_seqs <= max_num_batched_tokens:
            raise OptionError(
                f"max_num_batched_tokens is {max_num_batched_tokens}, max_num_seqs is "
                f"{max_num_seqs}; expected at least 1 sequence and a token for each of them: "
                "raise max_num_batched_tokens, or lower max_num_seqs")
        self.pool, self.max_waiting, self.max_model_len = pool, max_waiting, max_model_len
        self.max_num_seqs, self.max_num_batched_tokens = max_num_seqs, max_num_batched_tokens
        self.waiting: list[Request] = []  # both lists are in order
        self.running: list[Request] = []
        self.held = Holdings(pool, max_num_seqs)
        self._arrivals = self._number = self._updated = 0

    @property
    def has_unfinished(self) -> bool:
        return bool(self.waiting or self.running)

    def add(self, request: Request, *, bounded: bool = True) -> None:
        """Queue a request. Raises PromptError or OptionError for one that can never be served,
        QueueFullError where `max_waiting` requests wait already, if the queue is `bounded`."""
        count, size = request.prompt_len, self.pool.block_size
        if not 1 <= count <= self.max_model_len:
            raise PromptError(f"the prompt has {count} tokens, expected 1 to {self.max_model_len} "
                              "(max_model_len); shorten it, or raise max_model_len")
        limit = min(count + (request.params.max_tokens or self.max_model_len),
                    self.max_model_len + 1)
        if (blocks := self.held.blocks(limit - 1)) > self.pool.blocks:
            raise OptionError(
                f"a prompt of {count} tokens and {limit - count} new ones need {blocks} blocks of "
                f"{size} tokens, the KV cache has {self.pool.blocks}; lower max_tokens to at most "
                f"{max(0, self.pool.blocks * size + 1 - count)}, or shorten the prompt")
        if bounded and len(self.waiting) >= self.max_waiting:
            raise QueueFullError(f"{len(self.waiting)} requests wait already (max_waiting is "
                                 f"{self.max_waiting}); send this one again later")
        self._arrivals += 1
        request.limit, request.arrival = limit, self._arrivals
        request.order = (request.params.priority, request.arrival)
        insort(self.waiting, request, key=_order)

    def finish(self, request: Request, reason: str, stop_reason: int | str | None = None) -> None:
        """End a request: `abort`, or `stop` for what only its text shows. Does nothing for one that
        has ended. Call it between steps, not between `schedule` and `queued`."""
        if request.finished:
            return
        queue = self.running if request.status is Status.RUNNING else self.waiting
        if request.arrival:  # else it was never added
            del queue[bisect_left(queue, request.order, key=_order)]
        if queue is self.running:
            self.held.take(request)
        request.status = Status.FINISHED
        request.finish_reason, request.stop_reason = reason, stop_reason

    def schedule(self) -> Step:
        """Return the next step. Its work is empty where nothing can be computed before a step in
        flight is updated, or where nothing is left."""
        self._number += 1
        step = Step(self._number)
        prompts = self._decode(step)
        if not prompts and (step.preempted or not (self.waiting and self.held.slots)):
            return step
        most = self.max_num_batched_tokens
        budget = Budget(most, most - len(step.decodes))
        shares = list[int]()
        for request in prompts:
            remaining = request.total - request.computed
            shares.append(budget.offer(remaining, bool(self.waiting) or len(prompts) > 1))
            budget.spend(shares[-1], remaining)
        if not step.preempted:
            self._admit(prompts, shares, budget)
        left = budget.left
        for request, share in zip(prompts, shares, strict=True):
            tokens = share + min(left, request.total - request.computed - share)
            left -= tokens - share
            if tokens:
                step.add(request, tokens)
        return step

    def queued(self, step: Step) -> None:
        """Note that the step's work is queued: later steps may read the full blocks it writes."""
        for request, _, tokens, _ in step.prompts:
            if tokens > 1 and request.status is Status.RUNNING:
                self.held.enter(request)

    def update(self, step: Step, tokens: Sequence[int]) -> list[Request]:
        """Take the token of each work that samples, in order. Returns the requests that have one
        more, `ids[-1]`; some of them have ended. Raises LifetimeError for a step out of order."""
        rows = step.sampling
        if step.number <= self._updated or len(tokens) != len(rows):
            raise LifetimeError(f"step {step.number} brings {len(tokens)} tokens after step "
                                f"{self._updated}; expected {len(rows)}, and steps in order")
        self._updated = step.number
        self.pool.completed(step.number)
        changed = []
        for request, token in zip(rows, tokens, strict=True):
            if request.finish_reason is not None:
                continue
            ids, grammar = request.ids, request.grammar
            ids.append(token)
            changed.append(request)
            complete = grammar is not None and grammar.accept(token)
            if grammar is not None and grammar.problem is not None:
                self.finish(request, *grammar.problem)
            elif token in request.stop_ids and len(ids) > request.least:
                self.finish(request, "stop", None if token in request.eos_ids else token)
            elif complete:
                self.finish(request, "stop")
            elif len(ids) >= request.limit:
                self.finish(request, "length")
        return changed

    def check(self) -> None:
        """Raise LifetimeError unless blocks, slots and queues agree."""
        self.pool.check(request.blocks for request in self.running)
        slots = sorted(self.held.slots + [request.slot for request in self.running])
        wrong = [r for r in self.waiting if r.blocks or r.slot != -1] + [
            r for r in self.running if r.status is not Status.RUNNING
            or r.capacity != len(r.blocks) * self.pool.block_size or r.computed > r.capacity]
        if wrong or slots != list(range(self.max_num_seqs)) or any(
                queue != sorted(queue, key=_order) for queue in (self.waiting, self.running)):
            raise LifetimeError(f"the scheduler is inconsistent: {wrong[:5]}, slots {slots}")

    def _decode(self, step: Step) -> list[Request]:
        """Give each running sequence its next token; return those with more to compute."""
        prompts, lacking = list[Request](), 0
        decodes, starts, number = step.decodes, step.starts, step.number
        for request in self.running:  # which grows shorter at its end where one is preempted
            start, total = request.computed, request.total
            if total - start > 1:
                prompts.append(request)
            elif total >= request.limit or (request.needs_token and request.pending):
                continue  # it ends with a token in flight, or depends on it
            elif start >= request.capacity and not self._grow(request, step, lacking):
                lacking += 1
            else:
                if start < request.prompt_len:
                    step.prompt_tokens += 1
                request.computed, request.total, request.last_step = total, total + 1, number
                decodes.append(request)
                starts.append(start)
        return prompts

    def _grow(self, request: Request, step: Step, lacking: int) -> bool:
        """Give a sequence one more block. Where there is none, preempt from the end, unless blocks
        that wait for a step will do for it and for the `lacking` sequences before it."""
        pool = self.pool
        while not pool.free and pool.waiting <= lacking:
            victim = self.running[-1]
            self.held.take(victim)
            self.running.pop()
            victim.status = Status.PREEMPTED
            victim.preemptions += 1
            insort(self.waiting, victim, key=_order)
            step.preempted.append(victim)
            if victim is request:
                return False
        if not pool.free:
            return False
        self.held.grow(request)
        step.grown.append(len(step.decodes))
        return True

    def _admit(self, prompts: list[Request], shares: list[int], budget: Budget) -> None:
        """Admit waiting requests, with their shares of the budget."""
        partial = sum(share < request.total - request.computed
                      for request, share in zip(prompts, shares, strict=True))
        lacking = list[Request]()  # those without blocks, in order
        coming = self.held.coming(prompts)
        i = sharing = 0
        while budget.left and self.held.slots and i < min(len(self.waiting), PASSES + 1 + sharing):
            request = self.waiting[i]
            matched = self._match(request, first=not i)
            if matched is not None and self.held.next_key(request, matched) in coming:
                i, sharing = i + 1, min(sharing + 1, self.max_num_seqs)
                continue
            remaining = request.total - len(matched or ()) * self.pool.block_size
            share = budget.offer(remaining, len(self.waiting) > 1 or bool(prompts))
            if matched is None:
                lacking.append(request)
            if matched is None or (share < remaining and partial >= PARTIAL):
                i += 1
                continue
            if any(earlier.passed >= PASSES for earlier in lacking):
                break
            for earlier in lacking:
                earlier.passed += 1
            del self.waiting[i]
            self.held.give(request, matched)
            coming |= self.held.coming([request])
            request.status, request.passed = Status.RUNNING, 0
            insort(self.running, request, key=_order)
            prompts.append(request)
            shares.append(share)
            budget.spend(share, remaining)
            partial += share < remaining

    def _match(self, request: Request, *, first: bool) -> list[int] | None:
        """Return the cached blocks of a request's prefix, None where it cannot be admitted now."""
        if request.pending:
            return None  # preempted while a token was in flight
        growth, spare = self.held.growth, len(self.running)
        if request.preemptions >= PREEMPTIONS:
            if not first:
                return None
            spare = growth(request) + sum(growth(r) for r in self.running
                                          if r.order < request.order)
        return self.held.match(request, spare)
