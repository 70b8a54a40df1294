"""Replay capsules: one call of one kernel in a file, to be run again anywhere.

A capsule is an .npz without pickles: `header` is JSON as bytes, `in.NAME` and `out.NAME` are the
arrays. bf16 and 4-bit codes are stored as their bits; the header has every dtype.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import InputError, KernelyardError
from core.files import make_folder, whole_file
from core.ir.op import find_op
from core.reading import parse_json
from core.tensor.dtype import as_dtype
from core.tensor.tensor import Array
from core.verify.capsules.npz import read_arrays

FORMAT = "kernelyard capsule 1"
#: What NumPy, zipfile and zlib raise for a damaged file, and a reader for contents that it did not
#: expect.
DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, NotImplementedError,
          RuntimeError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class Capsule:
    """Holds a call: `entry` is the step's in the ledger. `source` and `versions` are the kernel's
    hash and surroundings when it computed the outputs; see `core.verify.capsules.provenance`.
    """

    op: str
    attrs: dict[str, Any]
    inputs: dict[str, Array | None]
    outputs: dict[str, Array]
    dtypes: dict[str, str]
    entry: dict[str, Any]
    reason: str
    versions: dict[str, str] = field(default_factory=dict)
    source: str = ""

    def write(self, path: Path) -> Path:
        """Write the file, and its folder where there is none."""
        header = {**vars(self), "format": FORMAT, "outputs": list(self.outputs),
                  "inputs": {k: a is not None for k, a in self.inputs.items()}}
        arrays = {f"in.{k}": _bits(a) for k, a in self.inputs.items() if a is not None}
        arrays |= {f"out.{k}": _bits(a) for k, a in self.outputs.items()}
        make_folder(path.parent)
        text = np.frombuffer(json.dumps(header).encode(), np.uint8)
        write_arrays(path, {"header": text, **arrays})
        return path

    @classmethod
    def read(cls, path: Path) -> Capsule:
        """Read a file. Raises InputError for one that is no capsule, or is damaged."""
        if not path.is_file():
            raise InputError(f"{path}: there is no such capsule")
        try:
            arrays = read_arrays(path)
            header = parse_json(bytes(arrays["header"]))
            if header["format"] != FORMAT:
                raise ValueError(f"format is {header['format']!r}, expected {FORMAT!r}")
            dtypes = {k: as_dtype(d) for k, d in header["dtypes"].items()}
            ins = {k: arrays[f"in.{k}"].view(dtypes[k].numpy) if there else None
                   for k, there in header["inputs"].items()}
            outs = {k: arrays[f"out.{k}"].view(dtypes[k].numpy) for k in header["outputs"]}
            op = find_op(header["op"])
            if list(ins) != [p.name for p in op.sig.params]:
                raise ValueError(f"inputs are {list(ins)}, but {op.name} takes "
                                 f"{[p.name for p in op.sig.params]}")
            return cls(op.name, op.complete(header["attrs"]), ins, outs, header["dtypes"],
                       dict(header["entry"]), str(header["reason"]), dict(header["versions"]),
                       str(header.get("source", "")))
        except (*DAMAGE, KernelyardError) as error:
            raise InputError(f"{path}: not a usable replay capsule "
                             f"({type(error).__name__}: {error}); expected a file that --capture "
                             "or a failed --check wrote, whole") from None


def _bits(array: Array) -> Array:
    """Return the array, as its bits where NumPy does not know its type."""
    contiguous = np.ascontiguousarray(array).reshape(array.shape)
    return contiguous if array.dtype.kind in "fiu" else contiguous.view(np.uint16)


def dtype_names(arrays: Mapping[str, Array | None]) -> dict[str, str]:
    """Return the dtype's name of each array that is there; uint8 holds packed 4-bit codes."""
    return {k: as_dtype(a.dtype).name for k, a in arrays.items() if a is not None}


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write a compressed .npz, whole or not at all. Raises OSError."""
    with whole_file(path) as file:
        np.savez_compressed(file, allow_pickle=False, **dict(arrays))
