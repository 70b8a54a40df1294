"""Random weights at published models' shapes: speed does not depend on their values."""

from __future__ import annotations

from typing import Any

import numpy as np

from core.dtype import as_dtype
from core.registry import default_registry
from core.select import Selector
from core.session import Session
from core.weights import QuantizedLayout, WeightStore
from models.architecture import find_architecture
from models.builder import EMBEDDING, HEAD, INV_FREQ
from models.config import ConfigReader
from models.rope import inverse_frequencies

_LLAMA = {"architectures": ["LlamaForCausalLM"], "hidden_act": "silu"}
CONFIGS: dict[str, dict[str, Any]] = {
    "tinyllama": {**_LLAMA, "vocab_size": 32000, "hidden_size": 2048, "intermediate_size": 5632,
                  "num_hidden_layers": 22, "num_attention_heads": 32, "num_key_value_heads": 4,
                  "rms_norm_eps": 1e-5, "max_position_embeddings": 2048, "rope_theta": 10000.0},
    "llama-1b": {**_LLAMA, "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192,
                 "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8,
                 "rms_norm_eps": 1e-5, "max_position_embeddings": 4096, "rope_theta": 500000.0,
                 "tie_word_embeddings": True},
    "qwen-0.5b": {"architectures": ["Qwen2ForCausalLM"], "hidden_act": "silu",
                  "vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864,
                  "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
                  "rms_norm_eps": 1e-6, "max_position_embeddings": 4096, "rope_theta": 1000000.0,
                  "tie_word_embeddings": True},
    "llama-7b": {**_LLAMA, "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008,
                 "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
                 "rms_norm_eps": 1e-5, "max_position_embeddings": 4096, "rope_theta": 10000.0},
}
_BLOCK = 1 << 24  # random numbers that all weights are cut from


class Weights:
    """A WeightStore of random weights; projections quantised where `bits` says so."""

    def __init__(self, config: Any, dtype: str, bits: int | None) -> None:  # noqa: ANN401
        self.rng = np.random.default_rng(1)
        self.block = self.rng.standard_normal(_BLOCK, np.float32)
        self.codes = self.rng.integers(-127 if bits == 8 else 0, 128 if bits == 8 else 256, _BLOCK
                                       ).astype(np.int8 if bits == 8 else np.uint8)
        self.dtype, self.bits = as_dtype(dtype).numpy, bits
        self.arrays: dict[str, Any] = {}
        self.layouts: dict[str, QuantizedLayout] = {}
        h, i = config.hidden_size, config.intermediate_size
        attention, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.matrix(EMBEDDING, config.vocab_size, h, quantized=False)
        if not config.tied_embeddings or bits:
            self.matrix(HEAD, config.vocab_size, h)
        for layer in range(config.layers):
            prefix = f"model.layers.{layer}"
            for name, rows, columns in (
                    ("self_attn.q_proj", attention, h), ("self_attn.k_proj", kv, h),
                    ("self_attn.v_proj", kv, h), ("self_attn.o_proj", h, attention),
                    ("mlp.gate_proj", i, h), ("mlp.up_proj", i, h), ("mlp.down_proj", h, i)):
                self.matrix(f"{prefix}.{name}.weight", rows, columns)
                if name.rpartition(".")[2] in config.biases:
                    self.vector(f"{prefix}.{name}.bias", rows, 0)
            for norm in ("input_layernorm", "post_attention_layernorm"):
                self.vector(f"{prefix}.{norm}.weight", h, 1)
        self.vector("model.norm.weight", h, 1)
        self.store = WeightStore(self.arrays, self.layouts)
        self.store.add(INV_FREQ, inverse_frequencies(config.rope, config.head_dim))

    def cut(self, block: Any, count: int) -> Any:  # noqa: ANN401
        return np.resize(np.roll(block[:1 << 20], int(self.rng.integers(1 << 20)))
                         if count <= 1 << 20 else block, count)

    def matrix(self, name: str, rows: int, columns: int, *, quantized: bool = True) -> None:
        scale = 1 if name == EMBEDDING else columns**-0.5
        if not self.bits or not quantized:
            self.arrays[name] = (self.cut(self.block, rows * columns) * np.float32(scale)).astype(
                self.dtype).reshape(rows, columns)
            return
        group, width = (64, columns) if self.bits == 8 else (128, -(-columns // 2))
        groups = -(-columns // group)
        self.arrays[f"{name}.codes"] = self.cut(self.codes, rows * width).reshape(rows, width)
        self.arrays[f"{name}.scales"] = ((0.5 + self.rng.random((rows, groups), np.float32))
                                         * np.float32(scale / (64 if self.bits == 8 else 4)))
        if self.bits == 4:
            self.arrays[f"{name}.zeros"] = np.full((rows, groups), 7.5, np.float32)
        self.layouts[name] = QuantizedLayout(self.bits, group, self.bits == 4)

    def vector(self, name: str, size: int, centre: float) -> None:
        self.arrays[name] = (centre + 0.1 * self.cut(self.block, size)).astype(self.dtype)


def session(name: str, dtype: str, bits: int | None, backend: str, context: int = 2048, *,
            store: WeightStore | None = None, fusion: bool = True, kv_dtype: str | None = None,
            chunk: int = 2048) -> Session:
    """A session over random weights, or over those of another session."""
    registry = default_registry()
    architecture = find_architecture(CONFIGS[name]["architectures"][0], registry)
    config = architecture.config(ConfigReader(CONFIGS[name], name))
    weights = store or Weights(config, dtype, bits).store
    activations, cache = as_dtype(dtype), as_dtype(kv_dtype or dtype)
    registry.backend(backend)
    return Session(lambda kind: architecture.build(config, weights, kind, activations=activations,
                                                   kv_dtype=cache),
                   weights, Selector(registry, (backend,), ()), vocab_size=config.vocab_size,
                   max_context=context, chunk=chunk, fusion=fusion)
