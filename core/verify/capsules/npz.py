"""Reads arrays of an .npz without pickles, each when it is asked for."""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from core.reading import open_regular
from core.tensor.tensor import Array

_LARGEST = 8 << 30  # bytes of all arrays
_HEADER = re.compile(rb"\{'descr': '(?P<descr>[<|][biuf][1248])', 'fortran_order': "
                     rb"(?P<order>True|False), 'shape': \((?P<shape>(\d{1,12}, ?){0,7}(\d{1,12})?)"
                     rb"\), \} *\n")


def read_arrays(path: Path) -> Mapping[str, Array]:
    """Return the arrays of a file, each read when it is asked for. Raises one of
    `core.verify.capsules.capsule.DAMAGE`, here or then."""
    return _Arrays(path)


class _Arrays(Mapping[str, Array]):
    """Compares each header with the size of its member before anything is allocated; NumPy's own
    reader evaluates headers and takes what they state."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            members = archive.infolist()
        self._sizes = {m.filename.removesuffix(".npy"): m.file_size for m in members}
        if len(self._sizes) < len(members):
            raise ValueError("a name is there twice")
        if sum(self._sizes.values()) > _LARGEST:
            raise ValueError(f"it unpacks to {sum(self._sizes.values())} bytes, expected at most "
                             f"{_LARGEST}")

    def __getitem__(self, name: str) -> Array:
        size = self._sizes[name]
        with open_regular(self._path) as file, zipfile.ZipFile(file) as archive, \
                archive.open(f"{name}.npy") as member:
            dtype, shape, order, start = _header(member, name)
            nbytes = dtype.itemsize * math.prod(shape)
            if nbytes != size - start:
                raise ValueError(f"{name} is {dtype}{list(shape)} and has {size - start} bytes, "
                                 f"expected {nbytes}")
            data = bytearray(member.read(nbytes))
        if len(data) != nbytes:
            raise ValueError(f"{name} ends after {len(data)} of {nbytes} bytes")
        return np.frombuffer(data, dtype).reshape(shape, order=order)

    def __iter__(self) -> Iterator[str]:
        return iter(self._sizes)

    def __len__(self) -> int:
        return len(self._sizes)


def _header(member: IO[bytes], name: str,
            ) -> tuple[np.dtype[Any], tuple[int, ...], Literal["C", "F"], int]:
    """Read dtype, shape, order and the byte at which data begins: numpy.lib.format, version 1."""
    start = member.read(10)
    if start[:8] != b"\x93NUMPY\x01\x00" or len(start) < 10:
        raise ValueError(f"{name} does not begin as NumPy's arrays do")
    length = int.from_bytes(start[8:], "little")
    found = _HEADER.fullmatch(member.read(length))
    if found is None:
        raise ValueError(f"the header of {name} is none that NumPy writes for numbers")
    shape = tuple(int(n) for n in found["shape"].split(b",") if n.strip())
    return (np.dtype(found["descr"].decode()), shape, "F" if found["order"] == b"True" else "C",
            10 + length)
