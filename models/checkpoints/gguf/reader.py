"""Reads GGUF files: weights stay mapped or quantised, tokenizer and config come from metadata.

llama.cpp's converter stores q and k of "llama" in pairs, of "qwen2" in halves; so they stay here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import ml_dtypes
import numpy as np

from core.errors import CheckpointError
from core.ops.quantized.layouts import Layout
from core.reading import MIB
from core.tensor.tensor import Array
from models.architectures.base import Architecture
from models.architectures.tensors import EMBEDDING, HEAD
from models.checkpoints.base import Checkpoint, Weights, read_start
from models.checkpoints.gguf.blocks import block_layout, expand_blocks, need_package, unpacked
from models.checkpoints.gguf.config import read_gguf_config
from models.checkpoints.gguf.header import GgufHeader, TensorInfo
from models.checkpoints.gguf.names import ROPE_FACTORS, gguf_family, to_huggingface
from models.checkpoints.gguf.sampling import read_sampling
from models.checkpoints.gguf.split import read_parts
from models.checkpoints.gguf.tokenizer import read_gguf_tokenizer, stop_ids
from models.checkpoints.gguf.types import MAGIC
from models.checkpoints.lazy import abstract
from models.checkpoints.stored import match_biases

_FLOATS = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16),
           "BF16": np.dtype(ml_dtypes.bfloat16)}


class GgufFile:
    """Reads a model in one GGUF file or in several parts, of any type in SUPPORTED (types.py)."""

    name, key = "GGUF file", "gguf"

    def recognises(self, path: Path) -> bool:
        return path.is_file() and read_start(path, 4) == MAGIC

    def read(self, path: Path, families: Mapping[str, Architecture]) -> Checkpoint:
        """Raises CheckpointError, ConfigError, TokenizerError."""
        header = read_parts(path)
        family = gguf_family(header, families)
        config = read_gguf_config(header, family)
        weights = _read_weights(header, family)
        tokenizer = read_gguf_tokenizer(header)
        stops = stop_ids(header, tokenizer)
        return Checkpoint(path, config, weights.arrays, tokenizer, tuple(stops), weights.quantized,
                          family.gguf_pairs, weights.notes, stops_from=stops,
                          generation=read_sampling(header.metadata, str(path)))


def _read_weights(header: GgufHeader, family: Architecture) -> Weights:
    weights = Weights()
    kept: Counter[str] = Counter()
    expanded: list[TensorInfo] = []
    for tensor in header.tensors.values():
        if tensor.name == ROPE_FACTORS:  # read_gguf_config made it part of the configuration
            continue
        name = to_huggingface(tensor.name, family)
        if tensor.type.name in _FLOATS:
            weights.arrays[name] = _floats(tensor)
            continue
        layout = block_layout(tensor.type.name)
        if layout is not None and (name in (EMBEDDING, HEAD) or name.endswith("_proj.weight")):
            _add_codes(weights, name, tensor, layout)
            kept[tensor.type.name] += 1
        else:
            need_package(tensor.type.name)
            weights.arrays.defer({name: abstract(tensor.shape, np.dtype(np.float32))},
                                 partial(_expanded, tensor))
            expanded.append(tensor)
    match_biases(weights)  # GGUF stores biases in F32
    if kept:
        weights.notes.append("kept quantised: " + _counted(kept))
    if expanded:
        weights.notes.append(_expansion(expanded))
    return weights


def _counted(kinds: Counter[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items())


def _expansion(tensors: list[TensorInfo]) -> str:
    """Describe what was expanded and why, and what that costs in memory."""
    said = []
    for kept, why in ((True, "norms and biases are floats"),
                      (False, "no kernel takes these codes")):
        kinds = Counter(t.type.name for t in tensors
                        if (block_layout(t.type.name) is not None) == kept)
        if kinds:
            said.append(f"{_counted(kinds)} ({why})")
    wide, stored = sum(4 * math.prod(t.shape) for t in tensors), sum(t.raw.nbytes for t in tensors)
    return (f"expanded to f32: {', '.join(said)}; {wide / MIB:,.1f} MiB in place of "
            f"{stored / MIB:,.1f}")


def _floats(tensor: TensorInfo) -> Array:
    """Return a view of the map, or a copy where the file is not aligned."""
    dtype = _FLOATS[tensor.type.name]
    raw = np.array(tensor.raw) if tensor.raw.ctypes.data % dtype.itemsize else tensor.raw
    values: Array = raw.view(dtype)
    return values.reshape(tensor.shape)


def _expanded(tensor: TensorInfo) -> tuple[Array]:
    return (expand_blocks(tensor.raw, tensor.type.name, tensor.shape),)


def _add_codes(weights: Weights, name: str, tensor: TensorInfo, layout: Layout) -> None:
    if len(tensor.shape) != 2:
        raise CheckpointError(f"tensor {tensor.name} is {tensor.type.name} {list(tensor.shape)}, "
                              "expected a matrix")
    rows, columns = tensor.shape
    parts = {f"{name}.{part}": abstract(spec.sizes, spec.dtype.numpy)
             for part, spec in layout.parts(rows, columns).items()}
    weights.arrays.defer(parts, lambda: list(
        unpacked(tensor.raw, tensor.type.name, (rows, columns)).values()))
    weights.quantized[name] = layout
