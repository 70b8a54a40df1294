"""Executor: runs steps of many sequences, each by the plan of its size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache

import numpy as np

from core.errors import LifetimeError
from core.ir.graph import Graph
from core.plan.arena import SharedArenas
from core.plan.ledger import Ledger
from core.plan.policy import KernelPolicy
from core.plan.weights import WeightStore
from core.runtime.batch import Batch, Kept, SequenceTable, batch_dims, widest_dims
from core.runtime.step import GraphKind, Observer
from core.runtime.step_plans import BoundStep, StepPlans
from core.tensor.tensor import Array

ONE = GraphKind("all", "argmax", batch=True)  #: a decode step in which nobody asks for more
PLANS = 96  # plans kept; they share their activations' memory


@dataclass
class Pending:
    """Holds a step that is queued: call `wait` for its results, by name, each [R, ...].

    places   the slot of each row, -1 for one that samples nothing
    token    i32 [R], sampled
    chosen, rank, top_ids, top  see `core.ops.log_probs`, where the batch asks for them
    logit    of the token, where logits lie in the host's memory and no step is queued behind this
             one, which would write there. It tells of the whole row: `argmax` and `sample` take the
             largest one where that is not finite
    """

    places: Array
    reads: Mapping[str, Callable[[], Array]]
    logits: Array | None

    def wait(self) -> dict[str, Array]:
        n = len(self.places)
        found = {name: read()[:n] for name, read in self.reads.items()}
        if self.logits is not None and "token" in found:
            places = found["token"] if n == 1 else found["token"] + _begins(n, self.logits.shape[1])
            found["logit"] = self.logits.take(places, mode="clip")  # others look at wrong tokens
        return found


@cache
def _begins(rows: int, width: int) -> Array:
    return np.arange(rows) * width


class Executor:
    """Holds the KV cache's blocks and the plans over them. Who calls it from several threads takes
    care that one is in it at a time.

    build   gives the graph of a kind, with dimensions T, S, R, E, B, NB, BS, N
    slots   sequences that a step may have
    width   the most blocks of one sequence
    """

    def __init__(self, build: Callable[[GraphKind], Graph], weights: WeightStore,
                 policy: KernelPolicy, *, slots: int, width: int) -> None:
        self.policy, self.weights, self.table = policy, weights, SequenceTable(slots, width)
        self._backend = policy.primary
        self.steps = StepPlans(build, weights, policy, batch_dims(slots, width), keep=PLANS,
                               arenas=SharedArenas())
        self._last: tuple[Batch, BoundStep, Kept] | None = None  # what was queued last
        self._open = True

    @property
    def run_ahead(self) -> int:
        """Return how many steps to have queued at once, so that the device never waits."""
        return min(2, self._backend.run_ahead) if self.steps.observer is None else 1

    def reserve(self, kind: GraphKind, tokens: int) -> int:
        """Place the weights, and take the activations' memory of a step of so many tokens in which
        every slot samples. Returns the bytes of a block of the KV cache."""
        self.steps.get(kind, widest_dims(self.steps.dims["N"], tokens))
        return self.steps.kv_bytes

    def set_blocks(self, blocks: int) -> None:
        """Take memory for so many blocks, which all sequences share, instead of the former ones."""
        self.steps.forget()
        self.steps.dims["NB"] = blocks
        self.steps.get(ONE, {"T": 1, "S": 1, "R": 1})  # its states are the cache

    def submit(self, batch: Batch) -> Pending:
        """Queue a step; the batch of the last one has moved on since. Raises NoKernelError for a
        size or kind that no kernel takes."""
        if not self._open:
            raise LifetimeError("this engine is closed; load it again")
        last, self._last, kept = self._last, None, []
        if last is not None and batch is last[0]:
            step = last[1]
            kept = batch.pack_moved(self.table, step.fields, last[2])
        else:
            kind = batch.kind(self.table)
            step = self.steps.get(kind, batch.dims(kind))
            batch.pack(self.table, step.fields)
        step.upload()
        self.steps.run(step.plan)
        alone, self._last = self.run_ahead == 1, (batch, step, kept)
        reads = {n: step.read_later(n, alone=alone) for n in step.results}
        return Pending(batch.places, reads, step.here.get("logits") if reads and alone else None)

    def observed(self, observer: Observer | None) -> AbstractContextManager[None]:
        """Let an observer run every plan in the block; the former one is back after it."""
        return self.steps.observed(observer)

    @property
    def ledger(self) -> Ledger:
        """Return the choices of every plan made so far."""
        return sum((p.ledger for p in self.steps.made), Ledger(()))

    def close(self) -> None:
        """Free the cache and the activations. A closed executor cannot run."""
        self._open, self._last = False, None
        self.steps.clear()
