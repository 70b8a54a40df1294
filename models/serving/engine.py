"""Engine: serves many requests at once. A scheduler chooses each step, an executor computes it."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from core.errors import LifetimeError, OptionError
from core.plan.ledger import Ledger
from core.runtime.executor import Executor, Pending
from core.runtime.kv_cache import BlockPool
from core.runtime.step import BLOCK_SIZE
from models.serving.batches.batching import Batching
from models.serving.grammar.compiler import GrammarCompiler
from models.serving.group import Group, check_tokens, nonfinite
from models.serving.offline import generate
from models.serving.params import SamplingParams
from models.serving.prompt import Prompt, encode_prompt
from models.serving.request import RequestOutput, make_requests
from models.serving.sampling_options import check_call, check_flags, check_text
from models.serving.scheduler import Scheduler
from models.serving.stats import EngineStats
from models.serving.step import Step
from models.tokenizers.base import Tokenizer

if TYPE_CHECKING:  # what checks steps is imported where it is used
    from models.serving.live.check import LiveCheck


class Engine:
    """Serve requests; each method is safe from any thread. Close it, or use it in a `with`
    statement, to free its memory.

    executor  runs the steps; it has `blocks` blocks of KV cache
    scheduler_options  keywords of `Scheduler`
    name, mode  of the model and of its choice of kernels, for `fingerprint`
    """

    def __init__(self, executor: Executor, tokenizer: Tokenizer, *, vocab_size: int,
                 eos_ids: frozenset[int], blocks: int, caching: bool = True,
                 scheduler_options: Mapping[str, int], name: str = "model",
                 mode: str = "default") -> None:
        self.name, self.mode = name, mode
        self.executor, self.tokenizer, self.vocab_size = executor, tokenizer, vocab_size
        self.eos_ids, self._blocks, self._caching = eos_ids, blocks, caching
        self.grammars = GrammarCompiler(tokenizer, vocab_size, eos_ids)
        self._lock, self._options = threading.RLock(), dict(scheduler_options)
        self._open, self.stats = True, EngineStats()
        self.submitter: Executor | LiveCheck = executor  # a LiveCheck looks at some steps too
        self._groups: dict[str, Group] = {}
        self._news: dict[str, RequestOutput] = {}  # what `step` is to return
        self._reset()

    # requests

    def add_request(self, request_id: str, prompt: Prompt, params: SamplingParams | None = None, *,
                    salt: str = "", streams: bool = True) -> None:
        """Queue a request.

        salt     prompts share cached blocks only under an equal salt
        streams  whether each step gives its text so far; else the last one does

        Raises PromptError, OptionError or TokenizerError for one that cannot be served,
        QueueFullError where too many wait already.
        """
        check_flags(streams=streams)
        self.queue(request_id, prompt, params, salt=salt, streams=streams, news=self._news)

    def queue(self, request_id: str, prompt: Prompt, params: SamplingParams | None = None, *,
              salt: str = "", streams: bool, news: dict[str, RequestOutput],
              bounded: bool = True) -> None:
        """Queue a request, as `add_request` does, whose output goes to `news` when it changes.
        Unless `bounded`, any number may wait: they are of one caller."""
        check_text(request_id=request_id, salt=salt)
        params = SamplingParams.of(params)
        ids = encode_prompt(prompt, self.tokenizer, self.vocab_size)
        params.check_vocabulary(self.vocab_size)
        params.check_queue(self.scheduler.max_waiting if bounded else None)
        requests = make_requests(request_id, ids, params, eos_ids=self.eos_ids, salt=salt,
                                 grammars=self.grammars)
        with self._lock:
            self._alive()
            if request_id in self._groups or request_id in news:
                raise OptionError(f"request {request_id!r} is running already; give each request "
                                  "an id of its own")
            group = Group(request_id, prompt if isinstance(prompt, str) else None, requests,
                          self.tokenizer, streams=streams, news=news)
            try:
                for request in requests:
                    self.scheduler.add(request, bounded=bounded)
            except BaseException:
                for request in requests:  # all of the n texts, or none
                    self.scheduler.finish(request, "abort")
                raise
            self._groups[request_id] = group

    def abort_request(self, request_id: str) -> RequestOutput | None:
        """End a request now. Returns what there is of it, None for one that is not running."""
        with self._lock:
            group = self._groups.pop(request_id, None)
            if group is None:
                return None
            for request in group.requests:
                self.scheduler.finish(request, "abort")
            group.end_all("abort")
            group.news.pop(request_id, None)
            return group.output

    @property
    def has_unfinished_requests(self) -> bool:
        """Tell whether `step` has more to give, or a step in flight still holds blocks."""
        return bool(self._groups or self._flight or self._news)

    def step(self) -> list[RequestOutput]:
        """Compute one step. Returns the outputs that have changed, as far as they have come; also
        those of steps that other threads made, for `generate`.

        Where the backend asks for it, the next step is queued before this one is waited for.
        Whatever is raised, every request is aborted and the engine can be used on: NoKernelError
        or KernelError from a kernel, CheckError for a token that no vocabulary has.
        """
        with self._lock:
            try:
                self.advance()
                return list(self._news.values())
            finally:
                self._news.clear()

    def advance(self) -> None:
        """Compute one step, as `step` does; what changes lies where the requests' `news` go."""
        with self._lock:
            self._alive()
            try:
                while len(self._flight) < self.executor.run_ahead:
                    step = self.scheduler.schedule()
                    if not step:
                        break
                    pending = self.submitter.submit(self._batching.batch(step))
                    self.scheduler.queued(step)
                    self._flight.append((step, pending))
                if self._flight:
                    self._take(*self._flight.popleft())
            except BaseException:
                self._reset()
                raise

    def generate(self, prompts: Prompt | Sequence[Prompt],
                 params: SamplingParams | Sequence[SamplingParams] | None = None, *,
                 progress: Callable[[int, int], object] = lambda done, total: None,
                 ) -> list[RequestOutput]:
        """Generate for each prompt, a text or ids; `params` are for all or one for each. Returns
        the outputs in the prompts' order. `progress` is told how many of how many are done.

        Raises as `add_request` before anything is computed, CheckError for logits that are not
        finite, LifetimeError where a step failed in another thread.
        """
        check_call(progress=progress)
        return generate(self, prompts, params, progress)

    # looking

    @property
    def fingerprint(self) -> str:
        """Name what results depend on: the model, the kernels of all plans so far, the mode."""
        return f"{self.name}-{self.ledger.hash}-{self.mode}"

    @property
    def ledger(self) -> Ledger:
        """Return which kernel runs each node of every plan made so far."""
        return self.executor.ledger

    def check(self) -> None:
        """Raise LifetimeError unless every block of the KV cache is accounted for."""
        with self._lock:
            self.scheduler.check()

    def close(self) -> None:
        """End every request and free the KV cache and the activations."""
        with self._lock:
            if self._open:
                self._open = False
                self._reset()
                self._news.clear()
                self.executor.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    # inside

    def _alive(self) -> None:
        if not self._open:
            raise LifetimeError("this engine is closed; load it again")

    def _reset(self) -> None:
        """End every request, and forget everything cached."""
        ended, self._groups = self._groups, {}
        self.pool = BlockPool(self._blocks, BLOCK_SIZE, self._caching)
        self.scheduler = Scheduler(self.pool, **self._options)
        self._flight: deque[tuple[Step, Pending]] = deque()
        self._batching = Batching(self.executor.table)
        for name, group in ended.items():
            group.end_all("abort")
            group.news[name] = group.output

    def _take(self, step: Step, pending: Pending) -> None:
        """Wait for a step, and give its tokens to their requests."""
        start = time.perf_counter()
        results = pending.wait()
        self.stats.wait_s += time.perf_counter() - start
        self.stats.add(step)
        sampled, owners = results["token"].tolist() if results else [], step.sampling
        rows: Sequence[int] = range(len(sampled))
        if len(sampled) > len(owners):  # the others are of prompts' tokens
            rows = np.flatnonzero(pending.places >= 0).tolist()
            sampled = [sampled[row] for row in rows]
            for work, row, token in self._batching.prompt_rows(step):
                group = self._groups.get(work.request.request_id)
                if group is not None and group.requests[0] is work.request:
                    group.add_prompt_logprobs(row, token, results)
        check_tokens(sampled, self.vocab_size)
        changed = self.scheduler.update(step, sampled)
        ended = set(owners).difference(changed) if len(changed) < len(owners) else ()
        logits = results["logit"].tolist() if "logit" in results else []
        finite, listed = math.isfinite(sum(logits)), "chosen" in results
        for request, row, token in zip(owners, rows, sampled, strict=True):
            name = request.request_id
            group = self._groups.get(name)
            if group is None or request in ended:  # since the step was queued
                continue
            if listed:
                group.add_logprobs(request, row, token, results)
            if not finite and not math.isfinite(logits[row]):
                self.scheduler.finish(request, "error", nonfinite(request, logits[row]))
            if (reason := group.push(request, token)) is not None:
                self.scheduler.finish(request, reason)
            group.news[name] = group.output
            if group.output.finished:
                del self._groups[name]
