"""config.json, translated once into a frozen ModelConfig."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from core.errors import ConfigError
from models.rope import RopeConfig

T = TypeVar("T")
REQUIRED: Any = object()


@dataclass(frozen=True)
class ModelConfig:
    """What graph builders need to know; sizes in elements. Field names follow Hugging Face's."""

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


class ConfigReader:
    """Typed access to a JSON object; errors name the file, the key, what was found and expected."""

    def __init__(self, data: Mapping[str, Any], where: str) -> None:
        self.data, self.where = data, where

    @classmethod
    def open(cls, path: Path) -> ConfigReader:
        """Raises ConfigError if the file is missing or is not a JSON object."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}; expected a Hugging Face "
                              "folder with config.json") from None
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{path} is not valid JSON: {error}") from None
        if not isinstance(data, dict):
            raise ConfigError(f"{path} holds a {type(data).__name__}, expected a JSON object")
        return cls(data, str(path))

    def get(self, key: str, kind: type[T], default: Any = REQUIRED) -> T:  # noqa: ANN401
        """The value of `key`; null counts as absent. Raises ConfigError."""
        value = self.data.get(key)
        if value is None:
            if default is REQUIRED:
                raise ConfigError(f"{self.where}: key {key!r} is missing, expected {kind.__name__}")
            return default  # type: ignore[no-any-return]
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ConfigError(f"{self.where}: {key} is {value!r}, expected {kind.__name__}")
        return value

    def size(self, key: str, default: Any = REQUIRED) -> int:  # noqa: ANN401
        """A positive integer."""
        value = self.get(key, int, default)
        if not 0 < value < 2**31:
            raise ConfigError(f"{self.where}: {key} is {value}, expected a positive 32-bit integer")
        return value

    def ids(self, key: str) -> tuple[int, ...]:
        """Token ids given as one integer, a list, or not at all."""
        value = self.data.get(key)
        found = value if isinstance(value, list) else [] if value is None else [value]
        if not all(type(i) is int and i >= 0 for i in found):
            raise ConfigError(f"{self.where}: {key} is {value!r}, expected a token id or a list")
        return tuple(found)

    def require(self, key: str, expected: object) -> None:
        """Refuse a feature that would change the computation and is not implemented."""
        found = self.data.get(key, expected)
        if found not in (expected, None):
            raise ConfigError(f"{self.where}: {key} is {found!r}, only {expected!r} is supported")


def read_config(reader: ConfigReader, architecture: str, biases: frozenset[str]) -> ModelConfig:
    """The keys that the Llama family shares, as transformers 4 and 5 write them."""
    reader.require("hidden_act", "silu")
    reader.require("partial_rotary_factor", 1.0)
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
    positions = reader.size("max_position_embeddings", 2048)
    return ModelConfig(
        architecture, reader.size("vocab_size"), hidden, reader.size("intermediate_size"),
        reader.size("num_hidden_layers"), heads, kv_heads, head_dim,
        eps, positions,
        RopeConfig.read(reader.data, reader.where, positions),
        reader.get("tie_word_embeddings", bool, False), biases,
        next(iter(reader.ids("bos_token_id")), None), reader.ids("eos_token_id"))
