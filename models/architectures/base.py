"""Architecture: states a model family once: its names, configuration, tensors and graph."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from core.errors import ConfigError
from core.installed.registry import Registry
from core.ir.graph import Graph
from core.plan.weights import WeightStore
from core.runtime.step import GraphKind
from core.tensor.dtype import DType
from models.architectures.config import ModelConfig
from models.architectures.rope import ROPE_TYPES
from models.architectures.tensors import WeightSpec
from models.json_reader import ConfigReader


class Architecture(ABC):
    """State everything that is true of one family. Readers, writers, random weights, the graph
    builder and the completeness check all ask here.

    name        in `architectures` of config.json
    model_type  in `model_type` of config.json
    gguf_name   GGUF's `general.architecture`, None where GGUF has no name for it
    gguf_pairs  GGUF stores the rows of q and k in pairs (2i, 2i+1), not in halves (i, i+d/2)
    gguf_keys   more metadata keys, without the architecture's prefix -> key of config.json
    gguf_layer  more tensors of a layer, GGUF's name -> name here, both without `.weight`
    """

    name: ClassVar[str]
    model_type: ClassVar[str]
    gguf_name: ClassVar[str | None] = None
    gguf_pairs: ClassVar[bool] = False
    gguf_keys: ClassVar[Mapping[str, str]] = {}
    gguf_layer: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def config(self, reader: ConfigReader) -> ModelConfig:
        """Read config.json. Raises ConfigError for what this architecture cannot do."""

    @abstractmethod
    def tensors(self, config: ModelConfig) -> dict[str, WeightSpec]:
        """List every tensor of the model by its name, in Hugging Face's words."""

    @abstractmethod
    def build(self, config: ModelConfig, weights: WeightStore, kind: GraphKind, *,
              activations: DType, kv_dtype: DType) -> Graph:
        """Declare the graph of one step. Raises CheckpointError for a misshapen weight."""


def families(registry: Registry) -> Mapping[str, Architecture]:
    """Return the architectures that plugins registered, by name; their rope types come along."""
    ROPE_TYPES.update(registry.table("register_rope_types"))
    return registry.table("register_models")


def find_architecture(name: str, registry: Registry) -> Architecture:
    """Return the architecture of that name. Raises ConfigError listing the known ones."""
    known = families(registry)
    if name not in known:
        lines = [f"architecture {name!r} is not supported, expected one of "
                 f"{', '.join(sorted(known))}; a plugin can add it with register_models"]
        lines += [f"  left out: {d}" for d in registry.plugins.dropped]
        lines += [f"  broken plugin {b}" for b in registry.plugins.broken]
        raise ConfigError("\n".join(lines))
    found = known[name]
    if not isinstance(found, Architecture):
        raise ConfigError(f"architecture {name!r} ({type(found).__module__}) is no "
                          "models.Architecture: plugin API 2 asks for its tensors; see "
                          "docs/plugin-api.md")
    return found
