"""Memory: decides before anything is loaded whether a model fits into a device."""

from __future__ import annotations

from collections.abc import Callable

from core.errors import AllocationError
from core.plan.weights import WeightStore
from core.runtime.step import BLOCK_SIZE, DECODE, step_dims
from core.tensor.dtype import DType
from core.tensor.host import HostAllocator
from models.checkpoints.lazy import LazyArrays
from models.engine.config import EngineConfig
from models.engine.footprint import Footprint, find_footprint


def footprint(config: EngineConfig, context: int, prompt: int = 0,
              unopened: str | None = None) -> Footprint:
    """Find what this model takes with a KV cache for `context` tokens and a prompt of `prompt`."""
    return find_footprint(config.graph, config.abstract, config.policy, prompt=prompt,
                          vocab_size=config.config.vocab_size, max_context=context,
                          chunk=config.chunk, unopened=unopened)


def cache_bytes(config: EngineConfig, context: int, dtype: DType | None = None) -> int:
    """Return the bytes of a KV cache for `context` tokens, in whole blocks, scales included."""
    one = config.graph(DECODE, dtype).bind({**step_dims(1), "T": 1}).roots("state")
    return -(-context // BLOCK_SIZE) * sum(v.spec.nbytes for v in one)


def made_names(config: EngineConfig) -> set[str]:
    """Name the arrays that loading makes in host memory: converted, quantised or expanded ones."""
    stored = config.arrays
    deferred = stored.deferred if isinstance(stored, LazyArrays) else set()
    return {name for name, array in config.abstract.arrays.items()
            if name in deferred or name not in stored or array is not stored[name]}


def nbytes(weights: WeightStore, names: set[str]) -> int:
    return sum(weights.arrays[name].nbytes for name in names)


def longest(total: Callable[[int], int], free: int, limit: int) -> int:
    """Return the most tokens of context, in whole blocks, for which total(tokens) is at most
    `free`. `total` grows, nearly in a line. 0 if not even one block fits."""
    least, most = total(BLOCK_SIZE), total(limit)
    if most <= free:
        return limit
    if least > free:
        return 0
    low, high = BLOCK_SIZE, -(-limit // BLOCK_SIZE) * BLOCK_SIZE
    while high - low > BLOCK_SIZE:
        share = (free - least) / (most - least)  # where a line between the two would meet `free`
        guess = (low + int(share * (high - low))) // BLOCK_SIZE * BLOCK_SIZE
        guess = min(max(guess, low + BLOCK_SIZE), high - BLOCK_SIZE)
        needed = total(guess)
        if needed <= free:
            low, least = guess, needed
        else:
            high, most = guess, needed
    return low


def check_fits(config: EngineConfig) -> None:
    """Raise AllocationError, with the numbers and what would fit, if the first device lacks the
    memory that loading must take. Pages of the mapped file are not counted: they can be evicted."""
    first, weights = config.policy.primary, config.abstract
    free, device = first.allocator.available(), first.allocator.device
    cache = cache_bytes(config, config.context)
    if free is None or 3 * weights.nbytes + 2 * cache < free:  # plenty: no need to plan kernels
        return
    made = nbytes(weights, made_names(config))
    if device != HostAllocator.device:
        _check_host(config, made)
        made = 0

    def total(context: int) -> int:
        return made + footprint(config, context).loaded(device)

    needed = total(config.context)
    if needed <= free:
        return
    fits = longest(total, free, config.context)
    hints = [f"--max-context {fits}"] if fits else []
    hints += ["--kv-dtype i8"] * (config.cache.short != "i8")
    hints += ["--quantize int8 or int4"] * (config.options.quantize is None)
    raise AllocationError(
        f"{config.checkpoint.path} needs {megabytes(needed)} on {device} ({first.name}), "
        f"{megabytes(free)} are free: weights {megabytes(needed - cache)} with activations, KV "
        f"cache {megabytes(cache)} for {config.context:,} tokens in {config.cache}; "
        + (f"{fits:,} tokens would fit. " if fits else "not even a short context fits. ")
        + f"Pass {', or '.join(hints)}; models.plan shows more")


def _check_host(config: EngineConfig, made: int) -> None:
    """Raise AllocationError where the host lacks memory for what it makes for another device."""
    free = HostAllocator().available()
    if free is not None and made > free:
        raise AllocationError(
            f"{config.checkpoint.path}: loading makes {megabytes(made)} in host memory, "
            f"{megabytes(free)} are free; quantise or convert it once with models.export")


def megabytes(nbytes: int) -> str:
    return f"{nbytes / 2**20:,.1f} MiB" if nbytes < 10 << 20 else f"{nbytes / 2**20:,.0f} MiB"
