"""GGUF files, read: weights stay mapped or quantised, the tokenizer and config come from metadata.

llama.cpp's converter stores q and k of "llama" in pairs, of "qwen2" in halves; so they stay here.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import ml_dtypes
import numpy as np

from core.errors import CheckpointError
from core.ops.expand import expand
from core.plan.weights import part_names
from core.tensor.tensor import Array
from models.architectures.base import Architecture
from models.architectures.tensors import EMBEDDING, HEAD
from models.checkpoints.base import Checkpoint, Weights, read_start
from models.checkpoints.gguf.blocks import block_layout, unpack_blocks
from models.checkpoints.gguf.config import read_gguf_config
from models.checkpoints.gguf.header import GgufHeader, TensorInfo, read_header
from models.checkpoints.gguf.names import ROPE_FACTORS, gguf_family, to_huggingface
from models.checkpoints.gguf.tokenizer import read_gguf_tokenizer, stop_ids
from models.checkpoints.gguf.types import MAGIC
from models.checkpoints.lazy import abstract
from models.checkpoints.stored import match_biases

_FLOATS = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16),
           "BF16": np.dtype(ml_dtypes.bfloat16)}


class GgufFile:
    """Reads F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q4_K and Q6_K, of architectures llama and qwen2."""

    name, key = "GGUF file", "gguf"

    def recognises(self, path: Path) -> bool:
        return path.is_file() and read_start(path, 4) == MAGIC

    def read(self, path: Path, families: Mapping[str, Architecture]) -> Checkpoint:
        """Raises CheckpointError, ConfigError, TokenizerError."""
        header = read_header(path)
        parts = header.metadata.get("split.count", 1)
        if parts not in (0, 1):
            raise CheckpointError(f"{path} is one of {parts} parts of a model, expected a whole one"
                                  "; join them with: llama-gguf-split --merge FIRST OUT")
        family = gguf_family(header, families)
        config = read_gguf_config(header, family)
        weights = _read_weights(header, family, tied=config.data["tie_word_embeddings"])
        tokenizer = read_gguf_tokenizer(header)
        return Checkpoint(path, config, weights.arrays, tokenizer, stop_ids(header, tokenizer),
                          weights.quantized,
                          family.gguf_pairs, weights.notes)


def _read_weights(header: GgufHeader, family: Architecture, tied: bool) -> Weights:
    weights = Weights()
    kept: dict[str, int] = {}
    for tensor in header.tensors.values():
        if tensor.name == ROPE_FACTORS:  # read_gguf_config made it part of the configuration
            continue
        name = to_huggingface(tensor.name, family)
        if tensor.type.name in _FLOATS:
            weights.arrays[name] = _floats(tensor)
        elif name.endswith("_proj.weight") or name in (EMBEDDING, HEAD):
            _add_blocks(weights, name, tensor, tied)
            kept[tensor.type.name] = kept.get(tensor.type.name, 0) + 1
        else:
            raise CheckpointError(f"{header.path}: tensor {tensor.name} is {tensor.type.name}, "
                                  "expected F32, F16 or BF16 for norms and biases")
    match_biases(weights)  # GGUF stores biases in F32
    if kept:
        weights.notes.append("kept quantised: " + ", ".join(f"{n} {kind}" for kind, n
                                                            in kept.items()))
    return weights


def _floats(tensor: TensorInfo) -> Array:
    """Return a view of the map, or a copy where the file is not aligned."""
    dtype = _FLOATS[tensor.type.name]
    raw = np.array(tensor.raw) if tensor.raw.ctypes.data % dtype.itemsize else tensor.raw
    values: Array = raw.view(dtype)
    return values.reshape(tensor.shape)


def _add_blocks(weights: Weights, name: str, tensor: TensorInfo, tied: bool) -> None:
    if len(tensor.shape) != 2:
        raise CheckpointError(f"tensor {tensor.name} is {tensor.type.name} {list(tensor.shape)}, "
                              "expected a matrix")
    rows, columns = tensor.shape
    unpack = partial(unpack_blocks, tensor.raw, tensor.type.name, (rows, columns))
    if name == EMBEDDING:
        weights.arrays.defer({name: abstract((rows, columns), np.dtype(np.float32))},
                             lambda: (expand(unpack(), columns),))
        weights.notes.append(f"{name} is {tensor.type.name} in the file and was expanded to f32: "
                             "look-ups have no quantised kernel")
        if not tied:
            return
        name = HEAD
    layout = block_layout(tensor.type.name)
    groups = abstract((rows, columns // layout.group_size), np.dtype(np.float32))
    codes = (abstract((rows, columns), np.dtype(np.int8)) if layout.bits == 8 else
             abstract((rows, columns // 2), np.dtype(np.uint8)))
    parts = dict(zip(part_names(name), (codes, groups, groups), strict=True))
    if not layout.has_zeros:
        del parts[part_names(name)[2]]

    def unpacked() -> list[Array]:
        q = unpack()
        return [a for a in (q.codes, q.scales, q.zeros) if a is not None]
    weights.arrays.defer(parts, unpacked)
    weights.quantized[name] = layout
