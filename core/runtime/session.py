"""Session: runs a model's steps over time, one sequence.

It prefills in chunks and decodes in a loop that feeds itself.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import update_wrapper
from operator import index
from typing import Concatenate, ParamSpec, TypeVar

import numpy as np

from core.errors import LifetimeError, OptionError, PromptError
from core.ir.graph import Graph
from core.plan.ledger import Ledger
from core.plan.plan import Plan
from core.plan.policy import KernelPolicy
from core.plan.weights import WeightStore
from core.plugins.backend import Backend
from core.reading import shown
from core.runtime.batch import Batch, SequenceTable
from core.runtime.step import BLOCK_SIZE, SEEN, GraphKind, Observer, Sampling, step_dims
from core.runtime.step_plans import BoundStep, StepPlans, sampled_logit
from core.tensor.dtype import DType
from core.tensor.tensor import Array

PLANS = 6  # plans kept: loops, and prompts of different lengths; each owns its activations
P = ParamSpec("P")
T = TypeVar("T")


def locked(method: Callable[Concatenate[Session, P], T]) -> Callable[Concatenate[Session, P], T]:
    """Let one thread at a time into a session: its tensors are those of the sequence."""
    def alone(self: Session, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self.lock:
            return method(self, *args, **kwargs)
    return update_wrapper(alone, method)


class Session:
    """Holds one sequence at a time. Each method is safe from any thread; who needs several calls to
    belong together holds `lock`.

    build        gives the graph of a kind, with dimensions T, S, B (blocks a sequence), NB, BS
    max_context  tokens that the KV cache holds
    chunk        the most tokens of a prompt computed at once
    """

    def __init__(self, build: Callable[[GraphKind], Graph], weights: WeightStore,
                 policy: KernelPolicy, *, vocab_size: int, max_context: int, chunk: int = 512,
                 ) -> None:
        self.policy, self.weights, self.max_context = policy, weights, max_context
        self.lock = threading.RLock()
        self.ids: list[int] = []  #: the tokens in the KV cache
        self.token = -1  #: sampled last; the next `step` reads it
        self.logit: float | None = None  #: of `token`, where logits lie in the host's memory
        self.epoch = 0  #: counts prefills and truncations; another number means an interruption
        self._looping = False  # whether the decode inputs on the device follow from `ids`, `token`
        self._queued: deque[Callable[[], Array]] = deque()
        self._chunk, self._vocab_size = chunk, vocab_size
        self._backend: Backend = policy.primary
        self._sampling, self._open = Sampling(), True
        blocks = -(-max_context // BLOCK_SIZE)
        self._table = SequenceTable(1, blocks)
        self._steps = StepPlans(build, weights, policy, step_dims(blocks), keep=PLANS)
        self.sample_with(self._sampling)

    # running

    @locked
    def prefill(self, ids: Sequence[int], head: str = "last") -> Array | None:
        """Append tokens to the sequence in chunks.

        head  "last": the next token is sampled and `step` may follow; "all": returns float32 logits
              [len(ids), V]; "none": only the KV cache is filled
        Raises PromptError if they do not fit into the context.
        """
        ids = self._known(ids)
        self._check(len(ids))
        self._stop_loop()
        rows = []
        for start in range(0, len(ids), self._chunk):
            part = ids[start:start + self._chunk]
            final = start + len(part) == len(ids)
            kind = GraphKind(head if final or head == "all" else "none",
                             self._sampling.kind if final and head == "last" else "none")
            step = self._steps.get(kind, {"T": len(part), "S": 1})
            self._pack(part, step)
            plan = step.plan
            self._steps.run(plan)
            self.ids += part  # only now: an interrupted run leaves nothing behind
            if head == "all":
                rows.append(np.array(plan.output("logits").numpy(), np.float32))
        if head == "last":
            token = int(plan.output("token").numpy()[0])
            self.logit = sampled_logit(token, step.here.get("logits"), self._vocab_size)
            self._start_loop(token)
        return np.concatenate(rows) if head == "all" else None

    @locked
    def step(self) -> int:
        """Compute one token from the last one sampled, and return the new one.

        Where the backend asks for it, further steps are queued before this one is waited for.
        Raises LifetimeError unless a prefill came before, PromptError when the context is full.
        """
        if not self._looping:
            self.alive()
            raise LifetimeError("there is no token to go on from; prefill a prompt first")
        left, queued, decode = self.max_context - len(self.ids), self._queued, self._decode
        if left <= 0:
            raise PromptError(f"the context of {self.max_context} tokens is full; start with a "
                              "larger --max-context")
        self._looping = False  # until this step is whole
        ahead = self._backend.run_ahead if self._steps.observer is None else 1
        while len(queued) < min(ahead, left):
            self._steps.run(self.decoder)
            queued.append(decode.read_later("token", alone=ahead == 1))
        new = int(queued.popleft()()[0])
        row = None if queued else decode.here.get("logits")
        self.logit = sampled_logit(new, row, self._vocab_size)
        self.ids.append(self.token)
        self.token, self._looping = new, True
        return new

    @locked
    def sample_with(self, sampling: Sampling, seen: Sequence[int] = ()) -> None:
        """Use this sampling from now on.

        seen  tokens already counted for the repetition penalty
        """
        self.alive()
        if not isinstance(sampling, Sampling):
            raise OptionError(f"sampling is {shown(sampling)}, expected core.runtime.step.Sampling")
        counted = self._known(seen)
        self._sampling = sampling
        self._table.open(0, sampling)
        self._table.put_blocks(0, 0, range(self._steps.dims["NB"]))  # one sequence has all of them
        self._decode = self._steps.get(GraphKind("last", sampling.kind, loop=True),
                                       {"T": 1, "S": 1})
        self.decoder = self._decode.plan
        if sampling.kind == "sample_seen":
            marks = np.zeros((1, self._vocab_size), np.int8)
            marks[0, counted] = 1
            self._steps.states[SEEN].write(marks)
        if self._looping:  # queued steps were sampled the old way
            self._start_loop(self.token)

    @locked
    def truncate(self, length: int = 0) -> None:
        """Forget all tokens after the first `length`; their cache entries are reused."""
        if not isinstance(length, int) or length < 0:
            raise PromptError(f"length is {shown(length)}, expected a number of tokens")
        del self.ids[length:]
        self._stop_loop()

    # looking

    def observed(self, observer: Observer | None) -> AbstractContextManager[None]:
        """Let an observer run every plan in the block; the former one is back after it."""
        return self._steps.observed(observer)

    @property
    def length(self) -> int:
        """Return the number of tokens in the KV cache."""
        return len(self.ids)

    @property
    def ledger(self) -> Ledger:
        """Return the choices of every plan made so far, decode first."""
        self.alive()
        plans = [self.decoder, *(p for p in self.plans if p is not self.decoder)]
        return sum((p.ledger for p in plans), Ledger(()))

    @property
    def plans(self) -> list[Plan]:
        """List the plans made so far, the one used last at the end."""
        return self._steps.made

    @property
    def kv_bytes(self) -> int:
        """Return the bytes of the KV cache, scales included."""
        return self._steps.kv_bytes

    @property
    def kv_dtype(self) -> DType:
        """Return the dtype of keys and values; an int8 cache has float32 scales beside them."""
        return self._steps.kv_dtype

    @locked
    def close(self) -> None:
        """Free the cache, the activations and the weights' tensors. A closed session cannot run."""
        self._open = False
        self._stop_loop()
        self._steps.clear()
        for name in ("decoder", "_decode"):
            self.__dict__.pop(name, None)
        self.weights.close()

    # inside

    def _pack(self, ids: Sequence[int], step: BoundStep) -> None:
        """Write and upload the inputs of a step that computes `ids` next."""
        one = np.zeros(1, np.int32)
        Batch(one, one + self.length, one + len(ids), np.asarray(ids, np.int32),
              one + len(ids) - 1, one).pack(self._table, step.fields)
        step.upload()

    def _known(self, given: Sequence[int]) -> list[int]:
        try:
            ids = [index(i) for i in given]
        except Exception:  # whatever a sequence raises that is none
            raise PromptError(f"ids are {shown(given)}, expected token ids") from None
        if ids and not 0 <= min(ids) <= max(ids) < self._vocab_size:
            raise PromptError(f"ids are {shown(ids)}, expected ids of the vocabulary, 0 to "
                              f"{self._vocab_size - 1}")
        return ids

    def _check(self, new: int) -> None:
        self.alive()
        if new == 0:
            raise PromptError("the prompt is empty: give at least one token")
        if self.length + new > self.max_context:
            raise PromptError(f"the prompt has {new} tokens after {self.length} already there, the "
                              f"context holds {self.max_context}; shorten it, or raise "
                              "--max-context")

    def alive(self) -> None:
        """Raise LifetimeError where the session is closed."""
        if not self._open:
            raise LifetimeError("this session is closed; load the model again")

    def _stop_loop(self) -> None:
        self.epoch += 1
        self._looping = False
        self._queued.clear()

    def _start_loop(self, token: int) -> None:
        self._queued.clear()
        self.token, self._looping = token, True
        if self.length < self.max_context:  # else no step may follow
            self._pack([token], self._decode)
