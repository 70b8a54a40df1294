"""Computes steps of a running engine once more, beside it: for checks that it must not feel."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from core.plan.arena import SharedArenas
from core.runtime.batch import Batch, SequenceTable
from core.runtime.executor import Executor
from core.runtime.step import BLOCK_SIZE, Observer, is_cache
from core.runtime.step_plans import StepPlans
from core.tensor.tensor import Array, Tensor

MOST_BLOCKS = 1024  # of the KV cache that a copy may hold: 16,384 tokens
_LEAST_BLOCKS = 16
_PLANS = 16  # plans that are kept for each size of the cache


class CopiedSteps:
    """Computes a step by the same kernels and weights as its executor, in memory of its own.

    A copy's KV cache holds only the blocks that the step reads or writes, renumbered, so that its
    cost does not depend on the size of the cache. Nothing that happens to a copy reaches the
    executor.

    observer  runs the copies
    """

    def __init__(self, executor: Executor, observer: Observer) -> None:
        self._executor, self._observer = executor, observer
        live = executor.table
        self._table = SequenceTable(*live.blocks.shape)
        self._table.settings, self._table.seeds = live.settings, live.seeds
        self._plans: dict[int, StepPlans] = {}  # by the blocks of their cache

    def take(self, batch: Batch) -> Callable[[], None] | None:
        """Copy what a step is about to read. Returns the function that computes the copy, None
        where it would have more than MOST_BLOCKS blocks."""
        used, held = self._blocks(batch)
        if len(used) > MOST_BLOCKS:
            return None
        size = max(_LEAST_BLOCKS, 1 << (len(used) - 1).bit_length())
        plans = self._plans.get(size)
        if plans is None:
            steps = self._executor.steps
            plans = self._plans[size] = StepPlans(
                steps.build, self._executor.weights, self._executor.policy,
                {**steps.dims, "NB": size}, keep=_PLANS, arenas=SharedArenas())
        for slot, own in zip(batch.slots, held, strict=True):
            self._table.blocks[slot] = -1
            self._table.blocks[slot, :len(own)] = np.searchsorted(used, own)
        kind = batch.kind(self._table)
        step = plans.get(kind, batch.dims(kind))
        batch.pack(self._table, step.fields)
        for name, source in self._executor.steps.states.items():
            if name in plans.states:
                rows = read_blocks(source, used) if is_cache(name) else source.numpy()
                write_blocks(plans.states[name], rows)

        def compute() -> None:
            step.upload()
            self._observer.run(step.plan)
        return compute

    def _blocks(self, batch: Batch) -> tuple[Array, list[Array]]:
        """Return the blocks that a step touches, in order, and those of each sequence."""
        ends = batch.starts + batch.counts
        held = [self._executor.table.blocks[slot, :-(-end // BLOCK_SIZE)]
                for slot, end in zip(batch.slots, ends, strict=True)]
        return np.unique(np.concatenate(held)), held


def read_blocks(cache: Tensor, blocks: Array) -> Array:
    """Return these blocks of a KV cache [2, NB, ...], whichever device it lies on."""
    if cache.buffer.allocator.host_view(cache.buffer) is not None:
        return cache.numpy()[:, blocks]
    found = np.empty((2, len(blocks), *cache.shape[2:]), cache.dtype.numpy)
    nbytes = found[0, 0].nbytes
    for half in range(2):
        for place, block in enumerate(blocks):
            offset = cache.offset + (half * cache.shape[1] + int(block)) * nbytes
            cache.buffer.allocator.copy_to_host(cache.buffer, found[half, place], offset)
    return found


def write_blocks(state: Tensor, rows: Array) -> None:
    """Write the first blocks of a KV cache, or all of another state; what follows is zero."""
    whole = np.zeros(state.shape, state.dtype.numpy)
    whole[tuple(slice(n) for n in rows.shape)] = rows
    state.write(whole)
