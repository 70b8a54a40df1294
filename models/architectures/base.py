"""What an architecture is, and the table that `register_models` fills."""

from __future__ import annotations

from typing import Protocol

from core.errors import ConfigError
from core.ir.graph import Graph
from core.plan.weights import WeightStore
from core.plugins.registry import Registry
from core.runtime.step import GraphKind
from core.tensor.dtype import DType
from models.architectures.config import ModelConfig
from models.json_reader import ConfigReader


class Architecture(Protocol):
    """Reads its part of config.json, and declares graphs over weights in Hugging Face's names."""

    def config(self, reader: ConfigReader) -> ModelConfig:
        """Raises ConfigError for what this architecture cannot do."""

    def build(self, config: ModelConfig, weights: WeightStore, kind: GraphKind, *,
              activations: DType, kv_dtype: DType) -> Graph:
        """The graph of one step. Raises CheckpointError for a missing or misshapen weight."""


def find_architecture(name: str, registry: Registry) -> Architecture:
    """The architecture that a plugin registered. Raises ConfigError listing the known ones."""
    known: dict[str, Architecture] = {}

    def register(architecture: str, implementation: Architecture) -> None:
        if architecture in known:
            raise ConfigError(f"architecture {architecture!r} is registered twice")
        known[architecture] = implementation

    registry.plugins.call_each("register_models", register=register)
    if name not in known:
        raise ConfigError(f"architecture {name!r} is not supported, expected one of "
                          f"{', '.join(sorted(known))}; a plugin can add it with register_models")
    return known[name]
