"""Makes published model shapes with random weights: speed depends on shapes, not on weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import OptionError
from core.installed.choice import PluginChoice
from core.installed.registry import default_registry
from core.tensor.dtype import as_dtype
from core.tensor.tensor import Array
from models.architectures.base import find_architecture
from models.checkpoints.base import Checkpoint
from models.checkpoints.lazy import LazyArrays, abstract
from models.json_reader import ConfigReader
from models.tokenizers.base import NoTokenizer

_NO_TEXT = "a random-weight model has no tokenizer"
_LLAMA3 = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
           "original_max_position_embeddings": 8192}


def _shape(architecture: str, vocab: int, hidden: int, inner: int, layers: int, heads: int,
           kv_heads: int, positions: int, theta: float, **more: Any) -> dict[str, Any]:  # noqa: ANN401
    return {"architectures": [architecture], "vocab_size": vocab, "hidden_size": hidden,
            "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads,
            "num_key_value_heads": kv_heads, "max_position_embeddings": positions,
            "rope_theta": theta, "rms_norm_eps": 1e-5, "eos_token_id": [], **more}


#: The published config.json files' numbers.
SHAPES: dict[str, dict[str, Any]] = {
    "tinyllama-1.1b": _shape("LlamaForCausalLM", 32000, 2048, 5632, 22, 32, 4, 2048, 1e4),
    "llama3.2-1b": _shape("LlamaForCausalLM", 128256, 2048, 8192, 16, 32, 8, 131072, 5e5,
                          rope_scaling=_LLAMA3, tie_word_embeddings=True, head_dim=64),
    "qwen2.5-0.5b": _shape("Qwen2ForCausalLM", 151936, 896, 4864, 24, 14, 2, 32768, 1e6,
                           rms_norm_eps=1e-6, tie_word_embeddings=True),
    "llama2-7b": _shape("LlamaForCausalLM", 32000, 4096, 11008, 32, 32, 32, 4096, 1e4),
}


def random_checkpoint(shape: str, stored: str, *, layers: int | None = None,
                      seed: int = 0) -> Checkpoint:
    """Make a model of a published shape in the dtype `stored`, of its own or fewer `layers`.

    Matrices are slices of one block of N(0, 1) numbers, scaled by 1/sqrt(columns); norms are ones.
    Each array is made when it is first read. Raises OptionError for an unknown shape.
    """
    checkpoint = abstract_checkpoint(shape, stored, layers=layers)
    numbers, arrays = _Numbers(seed, as_dtype(stored).numpy), LazyArrays()
    for i, (name, like) in enumerate(checkpoint.arrays.items()):
        arrays.defer({name: like}, partial(_made, numbers, name, like.shape, 7919 * i))
    return replace(checkpoint, arrays=arrays)


def abstract_checkpoint(shape: str, stored: str, *, layers: int | None = None) -> Checkpoint:
    """Make the same shapes and dtypes without memory, for planning. Raises OptionError likewise."""
    config = _config(shape, layers)
    arrays = {name: abstract(sizes, as_dtype(stored).numpy)
              for name, sizes in _tensors(config, shape).items()}
    return Checkpoint(Path(shape), ConfigReader(config, shape), arrays, NoTokenizer(_NO_TEXT), ())


class _Numbers:
    """Holds one block of N(0, 1) numbers, and copies scaled for matrices of some columns."""

    def __init__(self, seed: int, dtype: np.dtype[Any]) -> None:
        self.seed, self.dtype = seed, dtype
        self.scaled = cache(self._scaled)

    @cached_property
    def block(self) -> Array:
        return np.random.default_rng(self.seed).standard_normal(1 << 24, np.float32)

    def _scaled(self, columns: int) -> Array:
        return (self.block / np.float32(math.sqrt(columns))).astype(self.dtype)


def _made(numbers: _Numbers, name: str, shape: tuple[int, ...], offset: int) -> tuple[Array]:
    """Make one array; `offset` in steps of 7919, an odd prime, tells matrices apart."""
    if len(shape) == 1:
        return (numbers.block[:shape[0]].astype(numbers.dtype) if name.endswith(".bias")
                else np.ones(shape, numbers.dtype),)
    values, filled = np.empty(math.prod(shape), numbers.dtype), 0
    source, start = numbers.scaled(shape[-1]), -offset % numbers.block.size
    while filled < values.size:  # the block, again and again from `start`
        part = source[start:start + values.size - filled]
        values[filled:filled + part.size] = part
        filled, start = filled + part.size, 0
    return (values.reshape(shape),)


def _config(shape: str, layers: int | None) -> dict[str, Any]:
    if shape not in SHAPES:
        raise OptionError(f"unknown shape {shape!r}, expected one of {', '.join(SHAPES)}")
    return {**SHAPES[shape], **({} if layers is None else {"num_hidden_layers": layers})}


def _tensors(config: Mapping[str, Any], where: str) -> dict[str, tuple[int, ...]]:
    """Return names and shapes, as the family states them."""
    ours = default_registry(choice=PluginChoice(only=()))  # the shapes are of our families
    family = find_architecture(config["architectures"][0], ours)
    tensors = family.tensors(family.config(ConfigReader(config, where)))
    return {name: spec.shape for name, spec in tensors.items()}
