"""Translates Meta's params.json to the keys of config.json, and adds what Meta's code fixes.

Sources: ModelArgs, FeedForward and apply_scaling of https://github.com/meta-llama/llama-models
(llama3). The hidden size follows from `dim`, `ffn_dim_multiplier` and `multiple_of`. Llama-3.2 in
1B and 3B has a rope factor of 32, not the 8 that that code fixes: its issue #241.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.errors import ConfigError
from models.json_reader import ConfigReader

#: (dim, n_layers) of the published models with scaled rope -> its factor
_FACTORS = {(4096, 32): 8.0, (8192, 80): 8.0, (16384, 126): 8.0, (2048, 16): 32.0,
            (3072, 28): 32.0}
_ORIGINAL = 8192  # positions that Llama-3 was first trained for


def read_params(path: Path, rows: int, tied: bool) -> ConfigReader:
    """Read params.json; rows: the embedding's. Raises ConfigError for keys that are missing or
    cannot be used."""
    p = ConfigReader.open(path)
    for key in ("quantization_args", "moe_args", "lora_args", "vision_chunk_size"):
        p.require(key, None)
    dim, heads, layers = p.size("dim"), p.size("n_heads"), p.size("n_layers")
    scaled = p.get("use_scaled_rope", bool, False)
    theta = p.get("rope_theta", float, 10000.0)
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": theta}
    if scaled:
        rope |= {"rope_type": "llama3", "factor": _factor(p, dim, layers), "low_freq_factor": 1.0,
                 "high_freq_factor": p.get("rope_high_freq_factor", float, 4.0),
                 "original_max_position_embeddings": _ORIGINAL}
    positions = 131072 if scaled else _ORIGINAL if theta == 500000 else 4096
    return ConfigReader({
        "architectures": ["LlamaForCausalLM"], "hidden_size": dim,
        "intermediate_size": _hidden(p, dim), "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": p.size("n_kv_heads", heads),
        "rms_norm_eps": p.get("norm_eps", float), "vocab_size": _vocabulary(p, rows),
        "max_position_embeddings": p.size("max_seq_len", positions), "rope_parameters": rope,
        "tie_word_embeddings": tied}, p.where)


def _hidden(p: ConfigReader, dim: int) -> int:
    """Return two thirds of 4 dim, times the multiplier, up to a multiple of `multiple_of`."""
    hidden = 2 * 4 * dim // 3
    multiplier = p.get("ffn_dim_multiplier", float, 1.0)
    if not 0 < multiplier < 64:
        raise ConfigError(f"{p.where}: ffn_dim_multiplier is {multiplier}, expected 0 to 64")
    multiple = p.size("multiple_of")
    return -(-int(multiplier * hidden) // multiple) * multiple


def _vocabulary(p: ConfigReader, rows: int) -> int:
    """The embedding's; Llama-2 says -1, that is the tokenizer's."""
    stated = p.get("vocab_size", int, -1)
    if stated not in (-1, rows):
        raise ConfigError(f"{p.where}: vocab_size is {stated}, tok_embeddings.weight has {rows} "
                          "rows; the files do not belong together")
    return rows


def _factor(p: ConfigReader, dim: int, layers: int) -> float:
    known = _FACTORS.get((dim, layers))
    stated = p.get("rope_scaling_factor", float, known or 0.0)
    if not 0 < stated < 2**31:
        raise ConfigError(f"{p.where}: use_scaled_rope without rope_scaling_factor, and no "
                          f"published model has dim {dim} and n_layers {layers}; add the factor "
                          "(8 for Llama-3.1 and 3.3, 32 for Llama-3.2)")
    return stated
