"""Turns the work that the scheduler chose into a batch for the executor."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from core.runtime.batch import Batch, SequenceTable
from core.runtime.step import Sampling
from models.serving.batches.adjust import find_adjustments
from models.serving.request import Request
from models.serving.step import Step, Work

TOPS = (0, 5, 20)  # how many likeliest tokens a plan gives: few, so that plans are shared


class Batching:
    """Keeps the executor's table of sequences as the requests are, and makes batches."""

    def __init__(self, table: SequenceTable) -> None:
        self._table = table
        #: by slot: the request in it, how often it was preempted before, the blocks it has there
        self._written: dict[int, tuple[Request, int, int]] = {}
        #: the last step's requests and batch, where it decodes alone and all of them are plain
        self._decodes: list[Request] = []
        self._last: Batch | None = None

    def batch(self, step: Step) -> Batch:
        """Return the batch of a step that is not empty. Make it in the order of the steps."""
        if self._last is not None and not step.prompts and step.decodes == self._decodes:
            for row in step.grown:
                self._keep(step.decodes[row])
            self._last.move(self._table, step.grown)
            return self._last
        batch = self._make(step)
        plain = not step.prompts and all(request.plain for request in step.decodes)
        self._decodes, self._last = step.decodes, batch if plain else None
        return batch

    def _make(self, step: Step) -> Batch:
        slots, starts, counts, ids = list[int](), list[int](), list[int](), list[int]()
        rows, owners, targets = list[int](), list[Request | None](), list[int]()
        top: int | None = None
        for work in step.work:
            request, start, tokens, samples = work
            self._keep(request)
            slots.append(request.slot)
            starts.append(start)
            counts.append(tokens)
            ids += request.ids[start:start + tokens]
            if len(request.ids) < start + tokens:
                ids.append(-1 - request.slot)  # sampled by a step in flight
            params = request.params
            if params.prompt_logprobs is not None:
                known = self.prompt_targets(work)
                rows += range(len(ids) - tokens, len(ids) - tokens + len(known))
                owners += [None] * len(known)
                targets += known
                top = max(top or 0, params.prompt_logprobs)
            if samples:
                targets.append(-1 - len(rows))
                rows.append(len(ids) - 1)
                owners.append(request)
                if params.logprobs is not None:
                    top = max(top or 0, params.logprobs)
        slots_, starts_, counts_, ids_, rows_, places, targets_ = (
            np.array(numbers, np.int32) for numbers in (
                slots, starts, counts, ids, rows,
                [-1 if r is None else r.slot for r in owners], targets))
        return Batch(slots_, starts_, counts_, ids_, rows_, places, find_adjustments(owners),
                     None if top is None else next(n for n in TOPS if n >= top), targets_)

    @staticmethod
    def prompt_targets(work: Work) -> list[int]:
        """Return the tokens of the prompt that follow those of a step and whose log-probabilities
        are asked for."""
        request, stop = work.request, work.start + work.tokens + 1
        if request.params.prompt_logprobs is None:
            return []
        return request.ids[work.start + 1:min(stop, request.prompt_len)]

    def prompt_rows(self, step: Step) -> Iterator[tuple[Work, int, int]]:
        """Yield the row of each token that `prompt_targets` gives for a step."""
        row = len(step.decodes)  # a decode computes no token before the prompt's last one
        for work in step.prompts:
            for token in self.prompt_targets(work):
                yield work, row, token
                row += 1
            row += work.samples

    def _keep(self, request: Request) -> None:
        """Write a request's sampling and blocks into its slot, where they are not there yet."""
        slot, n = request.slot, len(request.blocks)
        held, epoch, written = self._written.get(slot, (None, 0, 0))
        if held is not request or epoch != request.preemptions:
            p = request.params
            assert p.seed is not None  # `choice` gives each text one
            self._table.open(slot, Sampling(p.temperature, p.top_k, p.top_p, p.min_p, 1.0, p.seed))
            written = 0
        if written < n:
            self._table.put_blocks(slot, written, request.blocks[written:])
        if written < n or held is not request:
            self._written[slot] = request, request.preemptions, n

