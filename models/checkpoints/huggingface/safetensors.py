"""Reads safetensors without copying: https://github.com/huggingface/safetensors#format.

The format's own library copies each tensor that it hands to NumPy; a memory map does not, so that a
model's weights occupy the page cache once. Every header is checked before anything is mapped, and
held to what that library demands: tensors cover the data without a hole or a byte to spare.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from core.errors import CheckpointError
from core.reading import MIB, open_regular, parse_json, shown
from core.tensor.dtype import DType, bf16, f16, f32, i4x2, i8, i32
from core.tensor.tensor import Array

#: I8, U8 and I32 hold codes of quantised matrices, U8 two of 4 bits and I32 eight
DTYPES: dict[str, DType] = {"F32": f32, "F16": f16, "BF16": bf16, "I8": i8, "U8": i4x2, "I32": i32}
#: dtypes of buffers that no layer needs, as models/checkpoints/stored.py leaves them out
OTHERS = {"BOOL": np.dtype(np.bool_), "I16": np.dtype(np.int16), "U16": np.dtype(np.uint16),
          "U32": np.dtype(np.uint32), "I64": np.dtype(np.int64), "U64": np.dtype(np.uint64),
          "F64": np.dtype(np.float64)}
MAX_HEADER = 16 * MIB  # bytes; a model of 126 layers needs 150 KB
MAX_RANK, MAX_NAME = 8, 512


def read_safetensors(path: Path) -> dict[str, Array]:
    """Map every tensor of the file, read-only. Raises CheckpointError with the fault."""
    try:
        with open_regular(path) as file:
            size = file.seek(0, 2)
            file.seek(0)
            prefix = file.read(8)
            length = int.from_bytes(prefix, "little")
            if len(prefix) < 8 or length > min(MAX_HEADER, size - 8):
                raise CheckpointError(f"{path} has {size} bytes and states a header of {length} "
                                      f"(of {MAX_HEADER} at most); it is truncated or not a "
                                      "safetensors file: fetch it again")
            text = file.read(length)
            data: Any = np.memmap(file, np.uint8, "r")[8 + length:]
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None
    header = _header(path, text)
    _check_cover(path, header, data.size)
    return {name: _array(entry, data) for name, entry in header.items()}


_Entry = tuple[np.dtype[Any], list[int], int, int]  # dtype, shape, first byte, end


def _header(path: Path, text: bytes) -> dict[str, _Entry]:
    try:
        if not text.startswith(b"{"):
            raise ValueError(f"it begins with {text[:1]!r}, expected '{{'")
        header = parse_json(text)
    except ValueError as error:  # also UnicodeDecodeError
        raise CheckpointError(f"{path}: the header is not valid JSON ({error}); the file is damaged"
                              ) from None
    header.pop("__metadata__", None)
    return {name: _entry(path, name, entry) for name, entry in header.items()}


def _entry(path: Path, name: str, entry: object) -> _Entry:
    if not name.isprintable() or len(name) > MAX_NAME:
        raise CheckpointError(f"{path}: a tensor is named {shown(name)}, expected printable "
                              f"characters, {MAX_NAME} at most; the file is damaged")
    if not isinstance(entry, Mapping):
        raise CheckpointError(f"{path}: the entry of tensor {name} is {shown(entry)}, expected an "
                              "object")
    kind, shape, offsets = (entry.get(k) for k in ("dtype", "shape", "data_offsets"))
    if isinstance(kind, str) and kind.startswith("F8"):
        raise CheckpointError(f"{path}: tensor {name} is float8 ({kind}), which cannot be read; "
                              "take the model in bf16, and pass --quantize int8 for its size")
    known = tuple(DTYPES) if name.endswith((".weight", ".bias")) else (*DTYPES, *OTHERS)
    if not isinstance(kind, str) or kind not in known:
        raise CheckpointError(f"{path}: tensor {name} has dtype {shown(kind)}, expected one of "
                              f"{', '.join(DTYPES)}")
    if not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2:
        raise CheckpointError(f"{path}: tensor {name} has shape {shown(shape)} and data_offsets "
                              f"{shown(offsets)}, expected lists of sizes")
    if len(shape) > MAX_RANK:
        raise CheckpointError(f"{path}: tensor {name} has {len(shape)} dimensions, expected at "
                              f"most {MAX_RANK}")
    begin, end = offsets
    dtype = DTYPES[kind].numpy if kind in DTYPES else OTHERS[kind]
    nbytes, extent = dtype.itemsize, 1
    for size in shape:  # numbers below 2^48, at most eight of them
        nbytes, extent = nbytes * size, extent * max(1, size)
    if end - begin != nbytes or extent >= 2**48:
        raise CheckpointError(f"{path}: tensor {name} {kind}{shape} needs {nbytes} bytes, its "
                              f"data_offsets {offsets} hold {end - begin}")
    return dtype, shape, begin, end


def _check_cover(path: Path, header: Mapping[str, _Entry], size: int) -> None:
    """Raise CheckpointError unless the tensors lie end to end and fill `size` bytes."""
    spans = sorted((begin, end, name) for name, (_, _, begin, end) in header.items())
    _, last, name = max(spans, key=lambda s: s[1], default=(0, 0, "none"))
    if last > size:
        raise CheckpointError(f"{path}: tensor {name} ends at byte {last} of the data, the file "
                              f"has {size}; it is truncated: fetch it again")
    for (_, end, first), (begin, _, second) in itertools.pairwise([(0, 0, "(start)"), *spans]):
        if begin < end:
            raise CheckpointError(f"{path}: tensors {first} and {second} overlap in the file; it "
                                  "is damaged")
        if begin > end:
            raise CheckpointError(f"{path}: {begin - end} bytes before tensor {second} belong to "
                                  "no tensor; the file is damaged: fetch it again")
    if last < size:
        raise CheckpointError(f"{path}: {size - last} bytes after the last tensor {name} belong to "
                              "no tensor; the file is damaged: fetch it again")


def _array(entry: _Entry, data: Array) -> Array:
    dtype, shape, begin, end = entry
    raw = data[begin:end]
    if raw.ctypes.data % dtype.itemsize:  # not every writer aligns its header to 8 bytes
        raw = np.array(raw)
    return raw.view(dtype).reshape(shape)


def _naturals(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(
        isinstance(v, int) and not isinstance(v, bool) and 0 <= v < 2**48 for v in value)
