"""Open an engine: take the memory of its activations first, then the KV cache from what is free."""

from __future__ import annotations

from core.errors import AllocationError
from core.plan.weights import WeightStore
from core.runtime.executor import Executor
from core.runtime.step import BLOCK_SIZE, GraphKind
from core.tensor.host import HostAllocator
from models.engine.config import EngineConfig
from models.engine.memory import megabytes
from models.engine.options import EngineOptions
from models.serving.engine import Engine

#: the step that takes most memory of its size
_WIDEST = GraphKind("last", "sample", batch=True, adjust="listed", top=5)


def open_engine(config: EngineConfig, weights: WeightStore, options: EngineOptions) -> Engine:
    """Open an engine on weights, which it places on the device as far as they are not there.

    Raises AllocationError where the memory holds no sequence of the longest context.
    """
    slots, checkpoint = options.max_num_seqs, config.checkpoint
    on_host = config.policy.primary.allocator.device == HostAllocator.device
    tokens = options.max_num_batched_tokens or max(512 if on_host else 2048, slots)
    width = -(-config.context // BLOCK_SIZE)
    executor = Executor(config.graph, weights, config.policy, slots=slots, width=width)
    block = executor.reserve(_WIDEST, max(tokens, slots))
    blocks = options.kv_blocks or _blocks(config, options, block, slots * width)
    executor.set_blocks(blocks)
    return Engine(executor, checkpoint.tokenizer, vocab_size=config.config.vocab_size,
                  eos_ids=frozenset(checkpoint.eos_ids), blocks=blocks,
                  caching=options.enable_prefix_caching,
                  scheduler_options={
                      "max_num_seqs": slots, "max_num_batched_tokens": tokens,
                      "max_model_len": config.context, "max_waiting": options.max_queue})


def _blocks(config: EngineConfig, options: EngineOptions, nbytes: int, most: int) -> int:
    """Return how many blocks of `nbytes` the KV cache gets, `most` if there is memory for them."""
    allocator = config.policy.primary.allocator
    free = allocator.available()
    if free is None:
        return most
    share = options.gpu_memory_utilization or (
        0.5 if allocator.device == HostAllocator.device else 0.9)
    fits, width = int(share * free) // nbytes, -(-config.context // BLOCK_SIZE)
    if fits < width:
        raise AllocationError(
            f"{config.checkpoint.path}: the KV cache of one sequence of {config.context:,} tokens "
            f"needs {megabytes(width * nbytes)} on {allocator.device}, {megabytes(free)} are free "
            f"beside weights and activations, of which {share:.0%} may be used; "
            + (f"pass --max-context {fits * BLOCK_SIZE} or less" if fits else
               "not one block fits: pass a smaller --max-num-batched-tokens or --max-num-seqs"))
    return min(fits, most)
