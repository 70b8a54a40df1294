"""Machine code that a backend compiles at run time, kept on disk.

An entry is named by everything that went into it, so a changed source, header, flag, target or
compiler makes another one, and an old one is never taken for it.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path


@cache
def source(path: Path) -> str:
    """The text of a source or a header."""
    return path.read_text(encoding="utf-8")


@cache
def headers(path: Path) -> tuple[Path, ...]:
    """The headers beside a source that it includes, directly or through others."""
    found: list[Path] = []
    for name in re.findall(r'#include "([^"]+)"', source(path)):
        header = path.with_name(name)
        found += [h for h in (header, *headers(header)) if h not in found]
    return tuple(found)


def texts(path: Path) -> list[str]:
    """What the machine code of a source is made of: its text, and its headers' with their names."""
    return [source(path), *(f"{h.name}\n{source(h)}" for h in headers(path))]


class CodeCache:
    """One backend's folder below XDG_CACHE_HOME or ~/.cache; counts what was there and what was
    not."""

    source, headers, texts = staticmethod(source), staticmethod(headers), staticmethod(texts)

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.hits = self.misses = 0

    @property
    def folder(self) -> Path:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return Path(base) / "kernelyard" / self.backend

    def folders(self) -> list[Path]:
        """The folder, if it is there."""
        return [self.folder] if self.folder.is_dir() else []

    def get(self, name: str, made_of: Sequence[str], make: Callable[[], bytes]) -> bytes:
        """The entry `name` made of these texts; `make` compiles it where there is none yet.

        The first time of a process that is told on standard error, and on a terminal each time what
        is being compiled. A folder that cannot be written only costs the next start its compile
        time.
        """
        key = hashlib.sha256("\0".join(made_of).encode()).hexdigest()[:32]
        path = self.folder / f"{name}-{key}.cubin"
        try:
            code = path.read_bytes()
            self.hits += 1
        except OSError:
            self.misses += 1
            with self._told(name):
                code = make()
            _store(path, code)
        return code

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        err = sys.stderr
        if self.misses == 1:
            print(f"{self.backend}: compiling kernels for this GPU, once; they are kept in "
                  f"{self.folder}", file=err)
        if not err.isatty():
            yield
            return
        print(f"\r  kernel {self.misses}: {name}", end="", file=err, flush=True)
        try:
            yield
        finally:
            print("\r\x1b[K", end="", file=err, flush=True)  # clears the line


def _store(path: Path, code: bytes) -> None:
    """Write beside the target, then rename: a reader sees all of it or nothing."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as part:
            part.write(code)
        os.replace(part.name, path)
    except OSError:
        return
