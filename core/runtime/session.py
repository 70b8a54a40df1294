"""Session: runs a model's graphs over time. Owns the KV cache and the step's inputs, plans each
shape once, prefills in chunks and decodes in a loop that feeds itself."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from core.errors import LifetimeError, PromptError
from core.ir.graph import Graph
from core.plan.ledger import Ledger
from core.plan.plan import Plan
from core.plan.policy import KernelPolicy
from core.plan.weights import WeightStore
from core.plugins.backend import Backend
from core.runtime.step import (
    BLOCK_SIZE,
    DECODE,
    GraphKind,
    Observer,
    Sampling,
    sequence_inputs,
    step_dims,
    token_inputs,
)
from core.tensor.dtype import DType
from core.tensor.tensor import Array, Tensor, TensorSpec

PREFILL_PLANS = 4  # plans kept for different prompt lengths; each owns its activations


class Session:
    """One sequence at a time.

    build        gives the graph of a kind, with dimensions T, S, B (blocks a sequence), NB, BS
    max_context  tokens that the KV cache holds
    chunk        the most tokens of a prompt computed at once
    """

    def __init__(self, build: Callable[[GraphKind], Graph], weights: WeightStore,
                 policy: KernelPolicy, *, vocab_size: int, max_context: int, chunk: int = 512,
                 ) -> None:
        self.policy = policy
        self.weights = weights
        self.max_context = max_context
        self._observer: Observer | None = None
        self.ids: list[int] = []  #: the tokens in the KV cache
        self.token = -1  #: drawn last; the next `step` reads it
        self._looping = False  # whether the decode inputs on the device follow from `ids`, `token`
        self.epoch = 0  #: counts prefills and truncations; another number means an interruption
        self._queued: deque[Callable[[], Array]] = deque()
        self._build, self._chunk = build, chunk
        self._vocab_size = vocab_size
        self._blocks = -(-max_context // BLOCK_SIZE)
        self._backend: Backend = policy.primary
        self._plans: OrderedDict[tuple[GraphKind, int], Plan] = OrderedDict()
        self._sampling = Sampling()
        self._open = True
        self._prompt_inputs: dict[int, dict[str, Tensor]] = {}
        self._states: dict[str, Tensor] = {}
        self._shared = self._zeros(sequence_inputs(vocab_size, self._blocks))
        self._shared["block_table"].write(np.arange(self._blocks, dtype=np.int32)[None])
        self._decode_inputs = self._zeros(token_inputs(1))
        self.decoder = self._plan(DECODE, 1)

    # running

    def prefill(self, ids: Sequence[int], head: str = "last") -> Array | None:
        """Append tokens to the sequence in chunks.

        head  "last": the next token is drawn and `step` may follow; "all": returns float32 logits
              [len(ids), V]; "none": only the KV cache is filled
        Raises PromptError if they do not fit into the context.
        """
        self._check(len(ids))
        self._stop_loop()
        rows = []
        for start in range(0, len(ids), self._chunk):
            part = ids[start:start + self._chunk]
            final = start + len(part) == len(ids)
            kind = GraphKind(head if final or head == "all" else "none",
                             self._sampling.kind if final and head == "last" else "none")
            plan = self._plan(kind, len(part))
            inputs = self._prompt_inputs[len(part)]
            places = np.arange(self.length, self.length + len(part), dtype=np.int32)
            inputs["ids"].write(np.asarray(part, np.int32))
            inputs["positions"].write(places)
            inputs["slots"].write(places)  # a single sequence owns the blocks in order
            self._set("seq_lens", self.length + len(part))
            self._set("last_rows", len(part) - 1)
            self._shared["query_starts"].write(np.array([0, len(part)], np.int32))
            self._run(plan)
            self.ids += [int(i) for i in part]  # only now: an interrupted run leaves nothing behind
            if head == "all":
                rows.append(np.array(plan.output("logits").numpy(), np.float32))
        if head == "last":
            self._start_loop(int(plan.output("token").numpy()[0]))
        return np.concatenate(rows) if head == "all" else None

    def step(self) -> int:
        """Compute one token from the last one drawn, and return the new one.

        Where the backend asks for it, further steps are queued before this one is waited for.
        Raises LifetimeError unless a prefill came before, PromptError when the context is full.
        """
        if not self._looping:
            self._alive()
            raise LifetimeError("there is no token to go on from; prefill a prompt first")
        if self.length >= self.max_context:
            raise PromptError(f"the context of {self.max_context} tokens is full; start with a "
                              "larger --max-context")
        self._looping = False  # until this step is whole
        ahead = self._backend.run_ahead if self._observer is None else 1
        while len(self._queued) < min(ahead, self.max_context - self.length):
            self._run(self.decoder)
            self._queued.append(self._backend.read_later(self._decode_inputs["ids"]))
        new = int(self._queued.popleft()()[0])
        self.ids.append(self.token)
        self.token, self._looping = new, True
        return new

    def sample_with(self, sampling: Sampling, seen: Sequence[int] = ()) -> None:
        """Use this sampling from now on.

        seen  tokens already counted for the repetition penalty
        """
        self._alive()
        self._sampling = sampling
        self.decoder = self._plan(GraphKind("last", sampling.kind, loop=True), 1)
        for name, value in (("temperature", sampling.temperature), ("top_k", sampling.top_k),
                            ("top_p", sampling.top_p), ("min_p", sampling.min_p),
                            ("penalty", sampling.repetition_penalty)):
            self._set(name, value)
        seed = sampling.seed & (2**64 - 1)
        self._shared["seeds"].write(np.array([[seed & 0xFFFFFFFF, seed >> 32]], np.uint32
                                             ).view(np.int32))
        if sampling.kind == "sample_seen":
            marks = np.zeros((1, self._vocab_size), np.int8)
            marks[0, list(seen)] = 1
            self._shared["seen"].write(marks)
        if self._looping:  # queued steps were drawn the old way
            self._start_loop(self.token)

    def truncate(self, length: int = 0) -> None:
        """Forget all tokens after the first `length`; their cache entries are reused."""
        del self.ids[length:]
        self._stop_loop()

    # looking

    @contextmanager
    def observed(self, observer: Observer | None) -> Iterator[None]:
        """Let an observer run every plan in the block; the former one is back after it."""
        former, self._observer = self._observer, observer
        try:
            yield
        finally:
            self._observer = former

    @property
    def length(self) -> int:
        """Tokens in the KV cache."""
        return len(self.ids)

    @property
    def ledger(self) -> Ledger:
        """The choices of every plan made so far, decode first."""
        self._alive()
        plans = [self.decoder, *(p for p in self._plans.values() if p is not self.decoder)]
        return sum((p.ledger for p in plans), Ledger(()))

    @property
    def plans(self) -> list[Plan]:
        return list(self._plans.values())

    @property
    def kv_bytes(self) -> int:
        return sum(t.nbytes for t in self._states.values())

    @property
    def kv_dtype(self) -> DType:
        """Of the keys and values; an int8 cache has float32 scales beside them."""
        return max(self._states.values(), key=lambda t: t.nbytes).dtype

    def close(self) -> None:
        """Free the cache, the activations and the weights' tensors. A closed session cannot run."""
        self._open = False
        self._plans.clear()
        self._states.clear()
        self._shared.clear()
        self._decode_inputs.clear()
        self._prompt_inputs.clear()
        self.__dict__.pop("decoder", None)
        self.weights.close()

    # inside

    def _run(self, plan: Plan) -> None:
        if self._observer is None:
            plan.run()
        else:
            self._observer.run(plan)

    def _check(self, new: int) -> None:
        self._alive()
        if new == 0:
            raise PromptError("the prompt is empty: give at least one token")
        if self.length + new > self.max_context:
            raise PromptError(
                f"the prompt has {new} tokens after {self.length} already there, the context holds "
                f"{self.max_context}; shorten it, or raise --max-context")

    def _alive(self) -> None:
        if not self._open:
            raise LifetimeError("this session is closed; load the model again")

    def _stop_loop(self) -> None:
        self.epoch += 1
        self._looping = False
        self._queued.clear()

    def _start_loop(self, token: int) -> None:
        self._queued.clear()
        self.token, self._looping = token, True
        state = {"ids": token, "positions": self.length, "slots": self.length}
        for name, value in state.items():
            self._decode_inputs[name].write(np.array([value], np.int32))
        if self.length >= self.max_context:
            self._decode_inputs["slots"].write(np.array([-1], np.int32))
        self._set("seq_lens", self.length + 1)
        self._set("last_rows", 0)
        self._shared["query_starts"].write(np.array([0, 1], np.int32))

    def _plan(self, kind: GraphKind, tokens: int) -> Plan:
        key = (kind, tokens)
        if key in self._plans:
            self._plans.move_to_end(key)
            return self._plans[key]
        inputs = self._decode_inputs if kind.loop else self._prompt_inputs.setdefault(
            tokens, self._zeros(token_inputs(tokens)))
        graph = self._build(kind).bind(step_dims(tokens, self._blocks))
        if not self._states:
            self._states = self._zeros({v.name: v.spec for v in graph.roots("state")})
        tensors = {**self._states, **self._shared, **inputs}
        plan = Plan(graph, self.policy, self.weights, tensors, repeats=kind.loop)
        self._plans[key] = plan
        prompts = [k for k in self._plans if not k[0].loop]
        for old in prompts[:-PREFILL_PLANS]:
            del self._plans[old]
        for size in set(self._prompt_inputs) - {n for k, n in self._plans if not k.loop}:
            del self._prompt_inputs[size]
        return plan

    def _zeros(self, specs: Mapping[str, TensorSpec]) -> dict[str, Tensor]:
        return {name: Tensor.zeros(spec.sizes, spec.dtype, self._backend.allocator)
                for name, spec in specs.items()}

    def _set(self, name: str, value: float) -> None:
        tensor = self._shared[name]
        tensor.write(np.array([value], tensor.dtype.numpy))
