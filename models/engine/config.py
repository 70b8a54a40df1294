"""Setting: everything that decides how a model is computed, settled before a weight is touched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.ir.graph import Graph
from core.plan.policy import Selector
from core.plan.weights import Progress, WeightStore, no_progress
from core.runtime.step import GraphKind
from core.tensor.dtype import DType
from core.tensor.tensor import Array
from models.architectures.base import Architecture
from models.architectures.config import ModelConfig
from models.architectures.layers import INV_FREQ
from models.architectures.rope import inverse_frequencies
from models.architectures.tensors import HEAD
from models.checkpoints.base import Checkpoint
from models.checkpoints.lazy import abstract_arrays, abstract_cast, abstract_quantize
from models.checkpoints.quantization import Quantization
from models.checkpoints.quantize import Cast, Quantize, cast, convert, quantize_weights


@dataclass(frozen=True)
class Options:
    """Everything that decides how a model is computed; `load` explains the fields."""

    backend: str | Sequence[str] = "cpu_numpy"
    dtype: str | None = None
    quantize: str | None = None
    kv_dtype: str | None = None
    max_context: int | None = None
    kernels: Sequence[str] = ()
    fusion: bool = True
    chunk: int = 512
    group_size: int | None = None
    keep: str | Sequence[str] = ()
    quantize_only: str | Sequence[str] = ()
    deterministic: bool = False
    lock: str | Path | None = None
    mmap: bool = True


@dataclass(frozen=True)
class Setting:
    """What a checkpoint and options settle before a weight is touched."""

    checkpoint: Checkpoint
    options: Options
    architecture: Architecture
    config: ModelConfig
    selector: Selector
    activations: DType
    cache: DType
    context: int
    quantization: Quantization | None

    def builder(self, weights: WeightStore) -> Callable[[GraphKind], Graph]:
        """Declares the graphs over these weights, or over their shapes."""
        def build(kind: GraphKind) -> Graph:
            return self.architecture.build(self.config, weights, kind, kv_dtype=self.cache,
                                           activations=self.activations)
        return build

    def weights(self, progress: Progress = no_progress) -> WeightStore:
        """The weights, converted and quantised as asked for."""
        store = self._store(self.checkpoint.arrays, progress, cast, Quantization.apply)
        store.moves = not self.options.mmap
        return store

    def abstract_weights(self) -> WeightStore:
        """The same shapes and dtypes; nothing is read, converted or quantised."""
        return self._store(abstract_arrays(self.checkpoint.arrays), no_progress, abstract_cast,
                           abstract_quantize)

    def _store(self, stored: Mapping[str, Array], progress: Progress, cast: Cast,
               quantize: Quantize) -> WeightStore:
        tied, layouts = self.config.tied_embeddings, self.checkpoint.quantized
        arrays = convert(stored, layouts, self.activations, progress, cast)
        if tied:
            arrays.pop(HEAD, None)
        store = quantize_weights(arrays, layouts, self.quantization, tied, progress, quantize)
        store.add(INV_FREQ, inverse_frequencies(self.config.rope, self.config.head_dim))
        return store
