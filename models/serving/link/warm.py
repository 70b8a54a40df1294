"""Does what the first steps of an engine would wait for, before it is ready."""

from __future__ import annotations

import gc
from collections import Counter
from contextlib import suppress

import numpy as np

from core.errors import NoKernelError
from core.runtime.batch import bucket
from core.runtime.step import GraphKind
from core.tensor.host import HostAllocator
from models.serving.engine import Engine
from models.serving.link.messages import EngineFacts
from models.serving.params import SamplingParams
from models.serving.stats import EngineStats
from models.tokenizers.base import NoTokenizer

TOUCHED = 128 << 20  # bytes of a KV cache in the host's memory that it has from the start
PAGE = 4096  # bytes


def warm(engine: Engine) -> EngineFacts:
    """Plan a prompt, and decode steps of all sizes, greedy or not: a stream would wait for each as
    for three steps of a small model. Their kernels then are known. Text is made elsewhere."""
    engine.tokenizer = NoTokenizer("the engine's process makes no text")
    _touch(engine)
    for rows in sorted({bucket(n + 1) for n in range(engine.scheduler.max_num_seqs)}):
        for sampling in ("argmax", "sample"):
            with suppress(NoKernelError):  # whoever needs that size is told
                engine.executor.steps.get(GraphKind("all", sampling, batch=True),
                                          {"T": rows, "S": rows, "R": rows})
    engine.generate([[0]], SamplingParams(temperature=0, max_tokens=2, ignore_eos=True))
    engine.stats = EngineStats()
    gc.collect()
    gc.freeze()  # what was loaded stays: a full collection would hold up every stream for 25 ms
    kernels = Counter(e.kernel.split(":")[0] for e in engine.ledger.entries)
    scheduler, pool = engine.scheduler, engine.pool
    return EngineFacts(
        engine.vocab_size, scheduler.max_model_len, scheduler.max_num_seqs,
        scheduler.max_num_batched_tokens, pool.blocks, pool.block_size,
        tuple(engine.executor.policy.backends), dict(kernels), engine.ledger.hash, engine.eos_ids)


def _touch(engine: Engine) -> None:
    """Write into the first pages of an unused KV cache. The system finds and clears a page when it
    is first written, and all layers come to their next huge one in the same step, which then took
    35 ms longer."""
    caches = [t for t in engine.executor.steps.cache if t.device == HostAllocator.device]
    for cache in caches:
        keys_and_values = cache.numpy().reshape(2, -1).view(np.uint8)
        keys_and_values[:, :TOUCHED // len(caches) // 2:PAGE] = 0
