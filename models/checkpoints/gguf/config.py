"""Translates GGUF metadata to the keys of config.json, and rope factors to the scaling that made
them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from core.errors import ConfigError
from core.reading import shown
from core.tensor.tensor import Array
from models.architectures.base import Architecture
from models.architectures.rope import RopeConfig, inverse_frequencies
from models.checkpoints.gguf.header import GgufHeader
from models.checkpoints.gguf.keys import Sizes, check_keys
from models.checkpoints.gguf.names import ROPE_FACTORS
from models.checkpoints.gguf.other_keys import check_others
from models.checkpoints.gguf.yarn import YARN, read_yarn
from models.json_reader import REQUIRED, ConfigReader

BLOCKS_VERSION = 2  # of the layouts of blocks; earlier ones are of spring 2023
_FACTORS = ("rope.scaling.factor", "rope.scale_linear")


def read_gguf_config(header: GgufHeader, family: Architecture) -> ConfigReader:
    """Translate the metadata. Raises ConfigError for a missing key, for one that changes the result
    and is not used (models.checkpoints.gguf.keys), or a file that holds no model."""
    meta, short = ConfigReader(header.metadata, str(header.path)), family.gguf_name
    _check_general(header, meta)

    def key(name: str) -> str:
        return f"{short}.{name}"
    layers = meta.size(key("block_count"))
    heads = _every_layer(meta, key("attention.head_count"), layers)
    hidden, context = meta.size(key("embedding_length")), meta.size(key("context_length"))
    head_dim = meta.size(key("attention.key_length"), max(1, hidden // heads))
    for name in ("attention.value_length", "rope.dimension_count"):
        if meta.size(key(name), head_dim) != head_dim:
            raise ConfigError(f"{meta.where}: {key(name)} is {meta.data[key(name)]}, expected the "
                              f"head size {head_dim}")
    eps = meta.get(key("attention.layer_norm_rms_epsilon"), float)
    scaling = meta.get(key("rope.scaling.type"), str, "linear")
    check_keys(meta, family, Sizes(head_dim, hidden, context, eps, scaling))
    theta = meta.get(key("rope.freq_base"), float, 10000.0)
    tokens = meta.data.get("tokenizer.ggml.tokens")
    embedding = header.tensors.get("token_embd.weight")
    vocabulary = embedding.shape[0] if embedding else len(tokens or ())
    return ConfigReader({
        "architectures": [family.name], "hidden_size": hidden,
        "intermediate_size": _every_layer(meta, key("feed_forward_length"), layers),
        "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": _every_layer(meta, key("attention.head_count_kv"), layers, heads),
        "head_dim": head_dim, "vocab_size": vocabulary, "max_position_embeddings": context,
        "rms_norm_eps": eps,
        "tie_word_embeddings": "output.weight" not in header.tensors,
        "attention_bias": "blk.0.attn_output.bias" in header.tensors,
        "mlp_bias": "blk.0.ffn_down.bias" in header.tensors,
        "rope_parameters": {"rope_theta": theta, **_scaling(header, meta, short, theta, head_dim,
                                                                 context)},
        **{hf: header.metadata[key(name)] for name, hf in family.gguf_keys.items()
           if key(name) in header.metadata},
    }, meta.where)


def _check_general(header: GgufHeader, meta: ConfigReader) -> None:
    check_others(header.metadata, meta.where)
    kind = meta.get("general.type", str, "model")
    if kind != "model":
        raise ConfigError(f"{meta.where}: general.type is {shown(kind)}, expected 'model': the "
                          "file belongs beside a model; name the model's own file")
    version = meta.get("general.quantization_version", int, BLOCKS_VERSION)
    blocks = any(t.type.elements > 1 for t in header.tensors.values())
    if blocks and version != BLOCKS_VERSION:
        raise ConfigError(f"{meta.where}: general.quantization_version is {version}, expected "
                          f"{BLOCKS_VERSION}: its blocks have another layout; convert the model "
                          "again with a current llama.cpp")


def _every_layer(meta: ConfigReader, key: str, layers: int, default: Any = REQUIRED) -> int:  # noqa: ANN401
    """Return a size that may stand once or for each layer. Raises ConfigError unless it is the same
    for all."""
    value = meta.data.get(key)
    if not isinstance(value, list):
        return meta.size(key, default)
    if len(value) != layers or any(v != value[0] for v in value):
        raise ConfigError(f"{meta.where}: {key} is {shown(value)}, expected one number, or the "
                          f"same for each of {layers} layers")
    return ConfigReader({key: value[0]}, meta.where).size(key)


def _scaling(header: GgufHeader, meta: ConfigReader, short: str | None, theta: float, head_dim: int,
             context: int) -> dict[str, Any]:
    """Return rope's scaling as llama.cpp reads it: linear where no type is stated, and a factor of
    0 is none."""
    kind = meta.get(f"{short}.rope.scaling.type", str, "linear")
    if kind not in ("none", "linear", YARN):
        raise ConfigError(f"{meta.where}: rope scaling {kind!r} is not supported, expected none, "
                          "linear, yarn or llama3's factors")
    stated = [meta.get(f"{short}.{name}", float) for name in _FACTORS
              if f"{short}.{name}" in meta.data]
    if len({*stated}) > 1:
        raise ConfigError(f"{meta.where}: {' and '.join(f'{short}.{n}' for n in _FACTORS)} are "
                          f"{' and '.join(f'{f:g}' for f in stated)}, expected one factor")
    factor = stated[0] if stated and kind != "none" else 0.0
    factors = header.tensors.get(ROPE_FACTORS)
    if factors is not None:
        expected = factors.type.name == "F32" and factors.shape == (head_dim // 2,)
        if not expected or not 0 < theta < math.inf:
            raise ConfigError(f"{meta.where}: {ROPE_FACTORS} is {factors.type.name} "
                              f"{list(factors.shape)}, expected F32 [{head_dim // 2}] with "
                              f"a finite theta, which is {theta}")
        if factor not in (0, 1):
            raise ConfigError(f"{meta.where}: rope is scaled by {ROPE_FACTORS} and by {kind!r} "
                              f"{factor:g}, only one of them is supported")
        return llama3_scaling(np.array(factors.raw).view(np.float32), theta, meta.where)
    if kind == YARN:
        return read_yarn(meta, short, factor, theta, context)
    if factor not in (0, 1):
        return {"rope_type": "linear", "factor": factor}
    return {"rope_type": "default"}


def llama3_scaling(factors: Array, theta: float, where: str) -> dict[str, Any]:
    """Find llama3's numbers from the table that divides each frequency, float32 [d/2].

    The largest factor is `factor`; Meta's models all blend between wavelengths of 1/1 and 1/4 of
    the original context, so that only this context is left to be found: a power of two.
    """
    largest = float(factors.max())
    if not (factors.min() > 0 and 1 <= largest < 1e6):
        raise ConfigError(f"{where}: {ROPE_FACTORS} holds factors from {factors.min():g} to "
                          f"{largest:g}, expected 1 or more; the file is damaged")
    for power in range(6, 21):
        numbers = {"factor": largest, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                   "original_max_position_embeddings": 1 << power}
        rope = RopeConfig(theta, "llama3", numbers)
        if np.allclose(rope_factors(rope, 2 * factors.size), factors, rtol=1e-4):
            return {"rope_type": "llama3", **numbers}
    raise ConfigError(f"{where}: {ROPE_FACTORS} holds factors up to {largest:g} that are not "
                      "llama3's; this scaling of rope is not supported")


def rope_factors(rope: RopeConfig, head_dim: int) -> Array:
    """Return the divisors of each unscaled frequency, float32 [d/2]."""
    plain = inverse_frequencies(RopeConfig(rope.theta), head_dim)
    return plain / inverse_frequencies(rope, head_dim)
