"""Settles a head and an embedding that the configuration ties: files may hold one, or both."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import TYPE_CHECKING

import numpy as np

from core.tensor.tensor import Array
from models.architectures.tensors import EMBEDDING, HEAD
from models.json_reader import ConfigReader

if TYPE_CHECKING:
    from models.checkpoints.base import Checkpoint

_PART = 1 << 22  # numbers compared at once: the first part tells nearly always


def settle_head(checkpoint: Checkpoint) -> None:
    """Make tie_word_embeddings true to the arrays, as transformers 5 does: a head that differs from
    the embedding is kept, and a note says so; a head alone is the embedding too."""
    arrays, config = checkpoint.arrays, checkpoint.config
    if not config.get("tie_word_embeddings", bool, False) or HEAD not in arrays:
        return
    if EMBEDDING not in arrays and EMBEDDING not in checkpoint.quantized:
        found = arrays if isinstance(arrays, MutableMapping) else dict(arrays)
        found[EMBEDDING] = arrays[HEAD]
        checkpoint.arrays = found
    elif EMBEDDING not in arrays or not _equal(arrays[HEAD], arrays[EMBEDDING]):
        checkpoint.config = ConfigReader({**config.data, "tie_word_embeddings": False},
                                         config.where)
        checkpoint.notes.append(
            f"tie_word_embeddings is true, but the file holds a {HEAD} that differs from "
            f"{EMBEDDING}: the file's head is used, as in transformers 5; set tie_word_embeddings "
            "to false to say so, or take the tensor out of the file")


def _equal(a: Array, b: Array) -> bool:
    """Compare bits where the dtypes agree: that is much faster than bf16 numbers are."""
    if a.shape != b.shape:
        return False
    if a.dtype == b.dtype:
        a, b = (np.ascontiguousarray(x).view(f"u{x.dtype.itemsize}") for x in (a, b))
    a, b = a.reshape(-1), b.reshape(-1)
    return all(np.array_equal(a[i:i + _PART], b[i:i + _PART]) for i in range(0, a.size, _PART))
