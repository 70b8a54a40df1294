"""Reads safetensors without copying: https://github.com/huggingface/safetensors#format.

The format's own library copies each tensor that it hands to NumPy; a memory map does not, so that a
model's weights occupy the page cache once. Every header is checked before anything is mapped.
"""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import TypeGuard

import numpy as np

from core.errors import CheckpointError
from core.tensor.dtype import DType, bf16, f16, f32, i4x2, i8, i32
from core.tensor.tensor import Array

#: I8, U8 and I32 hold codes of quantised matrices, U8 two of 4 bits and I32 eight
DTYPES: dict[str, DType] = {"F32": f32, "F16": f16, "BF16": bf16, "I8": i8, "U8": i4x2, "I32": i32}
MAX_HEADER = 100 << 20  # bytes; the limit of the format's own library


def read_safetensors(path: Path) -> dict[str, Array]:
    """Map every tensor of the file, read-only. Raises CheckpointError with the fault."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            prefix = file.read(8)
            length = int.from_bytes(prefix, "little")
            if len(prefix) < 8 or length > min(MAX_HEADER, size - 8):
                raise CheckpointError(f"{path} has {size} bytes and states a header of {length}; "
                                      "it is truncated or not a safetensors file: fetch it again")
            header = json.loads(file.read(length))
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # also UnicodeDecodeError
        raise CheckpointError(f"{path}: the header is not valid JSON ({error}); the file is damaged"
                              ) from None
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: the header is a {type(header).__name__}, expected an "
                              "object")
    header.pop("__metadata__", None)
    start = 8 + length
    data = np.memmap(path, np.uint8, "r", offset=0) if size else np.empty(0, np.uint8)
    tensors = {name: _tensor(path, name, entry, data, start) for name, entry in header.items()}
    spans = sorted((*e["data_offsets"], name) for name, e in header.items())
    for (_, end, first), (begin, _, second) in itertools.pairwise(spans):
        if begin < end:
            raise CheckpointError(f"{path}: tensors {first} and {second} overlap in the file; it "
                                  "is damaged")
    return tensors


def _tensor(path: Path, name: str, entry: object, data: Array, start: int) -> Array:
    if not isinstance(entry, dict):
        raise CheckpointError(f"{path}: the entry of tensor {name} is {entry!r}, expected an "
                              "object")
    kind, shape, offsets = (entry.get(k) for k in ("dtype", "shape", "data_offsets"))
    if not isinstance(kind, str) or kind not in DTYPES:
        raise CheckpointError(f"{path}: tensor {name} has dtype {kind!r}, expected one of "
                              f"{', '.join(DTYPES)}")
    if not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2:
        raise CheckpointError(f"{path}: tensor {name} has shape {shape!r} and data_offsets "
                              f"{offsets!r}, expected lists of sizes")
    begin, end = offsets
    dtype = DTYPES[kind]
    nbytes = math.prod(shape) * dtype.itemsize
    if end - begin != nbytes:
        raise CheckpointError(f"{path}: tensor {name} {dtype}{shape} needs {nbytes} bytes, its "
                              f"data_offsets {offsets} hold {end - begin}")
    if start + end > data.size:
        raise CheckpointError(f"{path}: tensor {name} ends at byte {start + end}, the file has "
                              f"{data.size}; it is truncated: fetch it again")
    raw = data[start + begin:start + end]
    if raw.ctypes.data % dtype.itemsize:  # not every writer aligns its header to 8 bytes
        raw = np.array(raw)
    return raw.view(dtype.numpy).reshape(shape)


def _naturals(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(
        isinstance(v, int) and not isinstance(v, bool) and 0 <= v < 2**48 for v in value)
