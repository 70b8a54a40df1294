"""Open an engine: take the memory of its activations first, then the KV cache from what is free."""

from __future__ import annotations

from typing import Any

from core.errors import AllocationError
from core.plan.weights import WeightStore
from core.runtime.batch import batch_dims, widest_dims
from core.runtime.executor import Executor
from core.runtime.step import BLOCK_SIZE, GraphKind
from core.tensor.host import HostAllocator
from models.engine.config import EngineConfig
from models.engine.footprint import batch_footprint
from models.engine.memory import megabytes, nbytes
from models.engine.options import EngineOptions
from models.serving.engine import Engine

#: the step that takes most memory of its size
WIDEST = GraphKind("last", "sample", batch=True, adjust="listed", top=5)


def sizes(config: EngineConfig, options: EngineOptions, device: str) -> tuple[int, int, int]:
    """Return sequences, tokens of a step, and blocks of the longest sequence. A step has at least
    a token for each sequence."""
    slots = options.max_num_seqs
    tokens = options.max_num_batched_tokens or (512 if device == HostAllocator.device else 2048)
    return slots, max(tokens, slots), -(-config.context // BLOCK_SIZE)


def cache_share(options: EngineOptions, device: str) -> float:
    """Return the share of the free memory that the KV cache may take."""
    return options.gpu_memory_utilization or (0.5 if device == HostAllocator.device else 0.9)


def open_engine(config: EngineConfig, weights: WeightStore, options: EngineOptions) -> Engine:
    """Open an engine on weights, which it places on the device as far as they are not there.

    Raises AllocationError where the memory holds no step of the most tokens, or no sequence of the
    longest context beside it.
    """
    checkpoint, (slots, tokens, width) = config.checkpoint, sizes(
        config, options, config.policy.primary.allocator.device)
    executor = Executor(config.graph, weights, config.policy, slots=slots, width=width)
    try:
        block = executor.reserve(WIDEST, tokens)
    except AllocationError as error:  # whose advice is for one sequence
        raise AllocationError(
            f"{checkpoint.path}: the weights, and the activations of a step of {tokens:,} tokens "
            f"and {slots:,} sequences, do not fit: {str(error).partition(';')[0]}; pass a smaller "
            "--max-num-batched-tokens or --max-num-seqs, or use --quantize") from None
    blocks = _blocks(config, options, block, slots * width)
    executor.set_blocks(blocks)
    return Engine(executor, checkpoint.tokenizer, vocab_size=config.config.vocab_size,
                  eos_ids=frozenset(checkpoint.eos_ids), blocks=blocks, name=checkpoint.name,
                  mode=config.options.mode,
                  caching=options.enable_prefix_caching,
                  scheduler_options={
                      "max_num_seqs": slots, "max_num_batched_tokens": tokens,
                      "max_model_len": config.context, "max_waiting": options.max_queue})


def _blocks(config: EngineConfig, options: EngineOptions, nbytes: int, most: int) -> int:
    """Return how many blocks of `nbytes` the KV cache gets: those asked for, else `most` if there
    is memory for them."""
    allocator, asked = config.policy.primary.allocator, options.kv_blocks
    free = allocator.available()
    if asked is not None and free is not None and asked * nbytes > free:
        raise AllocationError(
            f"{config.checkpoint.path}: a KV cache of {asked:,} blocks of {BLOCK_SIZE} tokens "
            f"needs {megabytes(asked * nbytes)} on {allocator.device}, {megabytes(free)} are free "
            f"beside weights and activations; pass --kv-blocks {free // nbytes} or less")
    if asked is not None or free is None:
        return asked or most
    share = cache_share(options, allocator.device)
    fits, width = int(share * free) // nbytes, -(-config.context // BLOCK_SIZE)
    if fits < width:
        raise AllocationError(
            f"{config.checkpoint.path}: the KV cache of one sequence of {config.context:,} tokens "
            f"needs {megabytes(width * nbytes)} on {allocator.device}, {megabytes(free)} are free "
            f"beside weights and activations, of which {100 * share:.3g}% may be used; "
            + (f"pass --max-context {fits * BLOCK_SIZE} or less" if fits else
               "not one block fits: pass a smaller --max-num-batched-tokens or --max-num-seqs")
            + ("" if share == 1 else ", or a larger --gpu-memory-utilization"))
    return min(fits, most)


def plan_engine(config: EngineConfig, options: EngineOptions, unopened: str | None, made: set[str],
                free: int | None) -> dict[str, Any]:
    """Return what an engine with these options would hold, in bytes, and how many sequences of the
    longest context its KV cache has room for; None where the free memory is unknown.

    unopened  the device of a backend that cannot be used here
    made      names of the arrays that loading makes in host memory
    """
    device = unopened or config.policy.primary.allocator.device
    slots, tokens, width = sizes(config, options, device)
    dims = {**batch_dims(slots, width), **widest_dims(slots, max(tokens, slots))}
    found = batch_footprint(config.graph, config.abstract, config.policy, WIDEST, dims, unopened)
    block = found.cache[device]
    held = found.loaded(device) - block + (
        nbytes(config.abstract, made) if device == HostAllocator.device else 0)
    blocks = None if free is None else min(
        slots * width, max(0, int(cache_share(options, device) * (free - held))) // block)
    return {"max_num_seqs": slots, "max_num_batched_tokens": tokens, "block_bytes": block,
            "activations": found.decode[device] + found.inputs[device], "held": held,
            "blocks": blocks, "tokens": None if blocks is None else blocks * BLOCK_SIZE,
            "sequences": None if blocks is None else blocks // width}
