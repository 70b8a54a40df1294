"""Where Numba keeps what it has compiled."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from numba import config


@contextmanager
def cache_of(folder: Path) -> Iterator[None]:
    """Functions declared meanwhile are cached under a key of all sources in `folder`.

    By itself Numba looks at the file of a function alone, and would go on using machine code into
    which an older version of a helper from another file has been inlined. Where the folder cannot
    be written, Numba falls back on the places that it uses by itself.
    """
    digest = hashlib.sha256(b"".join(p.read_bytes() for p in sorted(folder.glob("*.py"))))
    before = config.CACHE_DIR
    base = Path(before) if before else Path.home() / ".cache" / "kernelyard"
    config.CACHE_DIR = str(base / f"cpu_numba-{digest.hexdigest()[:16]}")
    try:
        yield
    finally:
        config.CACHE_DIR = before
