"""Brings tensors as files store them to what the ops take: names, buffers, dtypes of biases."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from core.errors import CheckpointError
from core.ops.quantized.layouts import stored_parts
from core.tensor.dtype import bf16, f16, f32
from core.tensor.tensor import Array
from models.architectures.tensors import EMBEDDING, HEAD
from models.checkpoints.base import Weights
from models.checkpoints.lazy import abstract

_FLOATS = {d.numpy for d in (f32, f16, bf16)}


def with_prefix(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Names as the model with a head has them: `LlamaModel` alone is saved without `model.`."""
    if EMBEDDING in arrays or EMBEDDING.removeprefix("model.") not in arrays:
        return dict(arrays)
    return {n if n.startswith(HEAD.partition(".")[0] + ".") else f"model.{n}": a
            for n, a in arrays.items()}


def drop_buffers(weights: Weights, where: str) -> None:
    """Leave out integers that are no parts of quantised matrices: buffers, such as position ids,
    that training saved along. Raises CheckpointError where a layer's weight holds them."""
    parts = stored_parts(weights.quantized)
    dropped = []
    for name in list(weights.arrays):
        dtype = weights.arrays.abstract(name).dtype
        if name in parts or dtype in _FLOATS:
            continue
        if name.endswith((".weight", ".bias")):
            raise CheckpointError(f"{where}: tensor {name} is {dtype}, expected float32, float16 "
                                  "or bfloat16; take the model in one of these")
        del weights.arrays[name]
        dropped.append(f"{name} ({dtype})")
    if dropped:
        weights.notes.append(f"left out {len(dropped)} tensors that no layer needs: "
                             f"{', '.join(dropped[:3])}{', ...' if len(dropped) > 3 else ''}")


def match_biases(weights: Weights) -> None:
    """Give each bias the dtype of its matrix, as the linear op takes them. Where that would round
    the bias, the matrix is widened to f32 instead, which changes no number."""
    for name in [n for n in weights.arrays if n.endswith(".bias")]:
        matrix = name.removesuffix("bias") + "weight"
        if matrix not in weights.arrays:
            continue
        weight, bias = weights.arrays.abstract(matrix), weights.arrays[name]
        if weight.dtype == bias.dtype or bias.shape != weight.shape[:1]:  # the builder complains
            continue
        with np.errstate(over="ignore", invalid="ignore"):
            same = bias.astype(weight.dtype)
        wide = bias.astype(np.float32)
        if np.array_equal(same.astype(np.float32), wide):
            weights.arrays[name] = same
            continue
        weights.arrays[name] = wide
        weights.arrays.defer({matrix: abstract(weight.shape, f32.numpy)},
                             partial(_widened, weights.arrays[matrix]))
        weights.notes.append(f"{matrix} was widened to f32: its bias is not exact in "
                             f"{weight.dtype}")


def _widened(stored: Array) -> tuple[Array]:
    return (stored.astype(np.float32),)
