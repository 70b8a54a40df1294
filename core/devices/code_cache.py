"""Keeps machine code that a backend compiles at run time on disk.

An entry is named by everything that went into it, so a changed source, header, flag, target or
compiler makes another one, and an old one is never taken for it. It ends in the SHA-256 of its name
and its code: what is damaged is compiled again. The machine runs what lies here, so a folder in
which others may write is not used.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from core.files import write_whole

_DIGEST = hashlib.sha256().digest_size
_OTHERS_WRITE = 0o022  # permission of the group or of everybody


@cache
def source(path: Path) -> str:
    """Return the text of a source or a header."""
    return path.read_text(encoding="utf-8")


@cache
def headers(path: Path) -> tuple[Path, ...]:
    """Find the headers beside a source that it includes, directly or through others."""
    found: list[Path] = []
    for name in re.findall(r'#include "([^"]+)"', source(path)):
        header = path.with_name(name)
        found += [h for h in (header, *headers(header)) if h not in found]
    return tuple(found)


def texts(path: Path) -> list[str]:
    """List what decides a source's machine code: its text, and its headers' with their names."""
    return [source(path), *(f"{h.name}\n{source(h)}" for h in headers(path))]


class CodeCache:
    """Keeps one backend's machine code in a folder below `base`, else XDG_CACHE_HOME or ~/.cache.

    `hits` and `misses` count the entries that were there and those that were not. Where there is no
    usable folder, or the disk is full, everything is compiled and nothing is kept; standard error
    says so once.
    """

    source, headers, texts = staticmethod(source), staticmethod(headers), staticmethod(texts)

    def __init__(self, backend: str, suffix: str = ".cubin", base: str = "") -> None:
        self.backend = backend
        self.hits = self.misses = 0
        self.unkept = False  #: whether something could not be kept, which was said
        self._suffix, self._base = suffix, base

    @property
    def folder(self) -> Path:
        """Name the folder, there or not. Raises OSError where this user has no home."""
        base = self._base or os.environ.get("XDG_CACHE_HOME")
        try:
            return (Path(base) if base else Path.home() / ".cache") / "kernelyard" / self.backend
        except RuntimeError as error:
            raise OSError(f"{error} Set HOME or XDG_CACHE_HOME.") from None

    def folders(self) -> list[Path]:
        """List the folder, if it is there."""
        try:
            return [self.folder] if self.folder.is_dir() else []
        except OSError:
            return []

    def get(self, name: str, made_of: Sequence[str], make: Callable[[], bytes]) -> bytes:
        """Return the entry `name` made of these texts; `make` compiles it where there is none.

        The first miss of a process is told on standard error, and on a terminal every kernel that
        is being compiled. A cache that does not work only costs the next start its compile time.
        """
        code = self.load(name, made_of)
        if code is None:
            with self._told(name):
                code = make()
            self.keep(name, made_of, code)
        return code

    def load(self, name: str, made_of: Sequence[str]) -> bytes | None:
        """Return the entry `name` made of these texts, None where there is none that is whole."""
        path = self._path(name, made_of)
        code = _read(path) if path else None
        self.hits, self.misses = self.hits + bool(code), self.misses + (not code)
        return code or None

    def keep(self, name: str, made_of: Sequence[str], code: bytes) -> None:
        """Keep the code of an entry for the next start, where there is a usable folder."""
        path = self._path(name, made_of)
        try:
            if path:
                write_whole(path, code + _digest(path, code))
        except OSError as error:
            self._not_kept(error)

    def _path(self, name: str, made_of: Sequence[str]) -> Path | None:
        key = hashlib.sha256("\0".join(made_of).encode()).hexdigest()[:32]
        folder = self._usable_folder()
        return folder and folder / f"{name}-{key}{self._suffix}"

    def _usable_folder(self) -> Path | None:
        """Make the folder where it is missing. Return None where it cannot be made or trusted."""
        try:
            folder = self.folder
            folder.parent.parent.mkdir(0o700, parents=True, exist_ok=True)
            for made in (folder.parent, folder):
                made.mkdir(0o700, exist_ok=True)
                _check_owner(made)
        except OSError as error:
            self._not_kept(error)
            return None
        return folder

    def _not_kept(self, reason: OSError) -> None:
        if not self.unkept:
            print(f"{self.backend}: compiled kernels are not kept, so each start compiles them "
                  f"again: {reason}", file=sys.stderr)
        self.unkept = True

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        err = sys.stderr
        if self.misses == 1:
            kept = "" if self.unkept else f", once; they are kept in {self.folder}"
            print(f"{self.backend}: compiling kernels for this GPU{kept}", file=err)
        if not err.isatty():
            yield
            return
        print(f"\r  kernel {self.misses}: {name}", end="", file=err, flush=True)
        try:
            yield
        finally:
            print("\r\x1b[K", end="", file=err, flush=True)  # clears the line


def _check_owner(folder: Path) -> None:
    """Raise PermissionError for a folder of another user, or one in which others may write."""
    if os.name != "posix":
        return
    found = folder.stat()
    if found.st_uid != os.geteuid():
        raise PermissionError(f"{folder} belongs to user {found.st_uid}, not to this user "
                              f"({os.geteuid()}); fix: set XDG_CACHE_HOME to a folder of this user")
    if found.st_mode & _OTHERS_WRITE:
        raise PermissionError(f"other users may write to {folder}; fix: chmod 700 {folder}, and "
                              "delete what others put there")


def _read(path: Path) -> bytes | None:
    """Read an entry's code. Return None where it is missing or damaged."""
    try:
        stored = path.read_bytes()
    except OSError:
        return None
    code, digest = stored[:-_DIGEST], stored[-_DIGEST:]
    return code if digest == _digest(path, code) else None


def _digest(path: Path, code: bytes) -> bytes:
    return hashlib.sha256(path.name.encode() + b"\0" + code).digest()
