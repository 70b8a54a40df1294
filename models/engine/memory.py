"""Budget: whether a model fits into a device's memory, decided before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable

from core.errors import AllocationError
from core.plan.weights import WeightStore
from core.plugins.backend import Backend
from core.runtime.footprint import Footprint, find_footprint
from core.runtime.step import GraphKind, step_dims
from core.tensor.dtype import DType
from models.checkpoints.lazy import LazyArrays
from models.engine.config import Setting

BLOCK = 16  # tokens: a KV cache is allocated in blocks


def footprint(setting: Setting, weights: WeightStore, context: int, prompt: int = 0,
              unopened: str | None = None) -> Footprint:
    """Of this model with a KV cache for `context` tokens, and a prompt of `prompt`."""
    options = setting.options
    return find_footprint(setting.builder(weights), weights, setting.selector, prompt=prompt,
                          vocab_size=setting.config.vocab_size, max_context=context,
                          chunk=options.chunk, fusion=options.fusion, unopened=unopened)


def cache_bytes(setting: Setting, weights: WeightStore, context: int,
                dtype: DType | None = None) -> int:
    """Of a KV cache for `context` tokens, in whole blocks, scales included."""
    graph = setting.architecture.build(
        setting.config, weights, GraphKind("none", block_size=BLOCK),
        activations=setting.activations, kv_dtype=dtype or setting.cache)
    one = graph.bind(step_dims(1, 1, BLOCK)).roots("state")
    return -(-context // BLOCK) * sum(v.spec.nbytes for v in one)


def made_names(setting: Setting, weights: WeightStore) -> set[str]:
    """Arrays that loading makes in host memory: converted, quantised or expanded ones."""
    stored = setting.checkpoint.arrays
    deferred = stored.deferred if isinstance(stored, LazyArrays) else set()
    return {name for name, array in weights.arrays.items()
            if name in deferred or name not in stored or array is not stored[name]}


def nbytes(weights: WeightStore, names: set[str]) -> int:
    return sum(weights.arrays[name].nbytes for name in names)


def longest(total: Callable[[int], int], free: int, limit: int) -> int:
    """The most tokens of context, in whole blocks, for which total(tokens) is at most `free`.
    `total` grows, nearly in a line. 0 if not even one block fits."""
    least, most = total(BLOCK), total(limit)
    if most <= free:
        return limit
    if least > free:
        return 0
    low, high = BLOCK, -(-limit // BLOCK) * BLOCK
    while high - low > BLOCK:
        share = (free - least) / (most - least)  # where a line between the two would meet `free`
        guess = (low + int(share * (high - low))) // BLOCK * BLOCK
        guess = min(max(guess, low + BLOCK), high - BLOCK)
        needed = total(guess)
        if needed <= free:
            low, least = guess, needed
        else:
            high, most = guess, needed
    return low


def check_fits(setting: Setting, weights: WeightStore, first: Backend) -> None:
    """Raise AllocationError, with the numbers and what would fit, if the first device lacks the
    memory that loading must take. Pages of the mapped file are not counted: they can be evicted."""
    free, device = first.allocator.available(), first.allocator.device
    cache = cache_bytes(setting, weights, setting.context)
    if free is None or 3 * weights.nbytes + 2 * cache < free:  # plenty: no need to plan kernels
        return
    made = nbytes(weights, made_names(setting, weights)) if device == "cpu" else 0

    def total(context: int) -> int:
        return made + footprint(setting, weights, context).loaded(device)

    needed = total(setting.context)
    if needed <= free:
        return
    fits = longest(total, free, setting.context)
    hints = [f"--max-context {fits}"] if fits else []
    hints += ["--kv-dtype i8"] * (setting.cache.short != "i8")
    hints += ["--quantize int8 or int4"] * (setting.options.quantize is None)
    raise AllocationError(
        f"{setting.checkpoint.path} needs {megabytes(needed)} on {device} ({first.name}), "
        f"{megabytes(free)} are free: weights {megabytes(needed - cache)} with activations, KV "
        f"cache {megabytes(cache)} for {setting.context:,} tokens in {setting.cache}; "
        + (f"{fits:,} tokens would fit. " if fits else "not even a short context fits. ")
        + f"Pass {', or '.join(hints)}; models.plan shows more")


def megabytes(nbytes: int) -> str:
    return f"{nbytes / 2**20:,.1f} MiB" if nbytes < 10 << 20 else f"{nbytes / 2**20:,.0f} MiB"
