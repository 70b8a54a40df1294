"""Writes safetensors one tensor at a time: https://github.com/huggingface/safetensors#format."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.plan.weights import Progress
from core.tensor.tensor import Array
from models.checkpoints.huggingface.safetensors import DTYPES

_NAMES = {dtype.numpy: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Entry:
    """A tensor to be written: `make` is called when its turn comes."""

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    make: Callable[[], Array]

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


def write_safetensors(path: Path, entries: Mapping[str, Entry], progress: Progress) -> None:
    """A new file; the header is padded so that the data begins at a multiple of eight bytes."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}  # transformers asks for it
    at = 0
    for name, entry in entries.items():
        header[name] = {"dtype": _NAMES[entry.dtype], "shape": list(entry.shape),
                        "data_offsets": [at, at + entry.nbytes]}
        at += entry.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    done = 0
    with path.open("xb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for entry in entries.values():
            array = np.ascontiguousarray(entry.make(), entry.dtype)
            assert array.shape == entry.shape  # else the header is wrong
            file.write(array.reshape(-1).view(np.uint8).data)
            done += entry.nbytes
            progress(f"writing {path.name}", done, at)
