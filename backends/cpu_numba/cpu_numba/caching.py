"""Chooses where Numba keeps compiled code."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from numba import config


def cache_folders() -> list[Path]:
    """Return the cache folders of this and of earlier versions."""
    return sorted(_base().glob("cpu_numba-*"))


def _base() -> Path:
    return Path(config.CACHE_DIR) if config.CACHE_DIR else Path.home() / ".cache" / "kernelyard"


@contextmanager
def cache_of(folder: Path) -> Iterator[None]:
    """Cache functions declared inside the block under a key of all sources in `folder`.

    By itself Numba looks at the file of a function alone, and would go on using machine code into
    which an older version of a helper from another file has been inlined. Where the folder cannot
    be written, Numba falls back on the places that it uses by itself.
    """
    digest = hashlib.sha256(b"".join(p.read_bytes() for p in sorted(folder.glob("*.py"))))
    before = config.CACHE_DIR
    config.CACHE_DIR = str(_base() / f"cpu_numba-{digest.hexdigest()[:16]}")
    try:
        yield
    finally:
        config.CACHE_DIR = before
