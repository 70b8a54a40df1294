"""Arrays in an .npz without pickles: written whole or not at all, read with one kind of error."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from core.tensor.tensor import Array

#: What NumPy, zipfile and zlib raise for a damaged file, and a reader for contents that it did not
#: expect.
DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, NotImplementedError,
          RuntimeError, zipfile.BadZipFile, zlib.error)


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write under a temporary name, then rename."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **dict(arrays))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_arrays(path: Path) -> dict[str, Array]:
    """Every array of the file. Raises one of DAMAGE."""
    with path.open("rb") as file:  # NumPy leaves a file that it cannot read open
        loaded = np.load(file, allow_pickle=False)
        if not hasattr(loaded, "files"):
            raise ValueError("one array, and not an archive of several")
        return {name: loaded[name] for name in loaded.files}
