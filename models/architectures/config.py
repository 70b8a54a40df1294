"""Translate config.json once into a frozen ModelConfig."""

from __future__ import annotations

from dataclasses import dataclass

from core.errors import ConfigError
from models.architectures.rope import RopeConfig, inverse_frequencies
from models.json_reader import ConfigReader


@dataclass(frozen=True)
class ModelConfig:
    """Hold what graph builders need to know; sizes in elements. Field names follow Hugging
    Face's."""

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    norm_eps: float
    max_positions: int
    rope: RopeConfig
    tied_embeddings: bool
    #: projections that add a bias: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj
    biases: frozenset[str]
    bos_id: int | None
    eos_ids: tuple[int, ...]
    #: why there are no more than `max_positions`; empty where the file says no more
    limit: str = ""


def read_config(reader: ConfigReader, architecture: str, biases: frozenset[str],
                window: int | None = None) -> ModelConfig:
    """Read the keys that the Llama family shares, as transformers 4 and 5 write them. Raises
    ConfigError for what cannot be computed."""
    reader.require("hidden_act", "silu", "swish")
    reader.require("partial_rotary_factor", 1.0)
    reader.require("is_causal", True)  # false lets positions see later ones: a model of embeddings
    eps = reader.get("rms_norm_eps", float, 1e-6)
    if not 0 <= eps < 1:
        raise ConfigError(f"{reader.where}: rms_norm_eps is {eps}, expected 0 to 1")
    hidden, heads = reader.size("hidden_size"), reader.size("num_attention_heads")
    kv_heads = reader.size("num_key_value_heads", heads)
    if reader.data.get("head_dim") is None and hidden % heads:
        raise ConfigError(f"{reader.where}: hidden_size {hidden} is not divisible by "
                          f"num_attention_heads {heads}, and head_dim is not given")
    if heads % kv_heads:
        raise ConfigError(f"{reader.where}: num_attention_heads {heads} is not a multiple of "
                          f"num_key_value_heads {kv_heads}")
    head_dim = reader.size("head_dim", hidden // heads)
    if head_dim % 2:
        raise ConfigError(f"{reader.where}: head_dim is {head_dim}, rope needs an even number")
    stated = reader.size("max_position_embeddings", 2048)
    rope = RopeConfig.read(reader.data, reader.where, stated)
    inverse_frequencies(rope, head_dim)  # says now whether there are any
    positions, limit = stated, rope.scaling.limit
    if rope.scaling.positions is not None:
        positions = rope.scaling.positions(rope)
    if window is not None and window < positions:
        positions, limit = window, (f"sliding_window is {window}, and only attention over all "
                                    "positions is supported")
    return ModelConfig(
        architecture, reader.size("vocab_size"), hidden, reader.size("intermediate_size"),
        reader.size("num_hidden_layers"), heads, kv_heads, head_dim,
        eps, positions, rope,
        reader.get("tie_word_embeddings", bool, False), biases,
        next(iter(reader.ids("bos_token_id")), None), reader.ids("eos_token_id"), limit)
