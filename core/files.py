"""Writes files that are never there by half."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that gets its name when the block ends without an error.

    Until then its bytes lie beside it under a name of their own, and they are on the disk before
    the rename: a reader sees the old file or the new one, also after a crash. What exists and is no
    regular file, such as /dev/stdout, is written directly. Raises OSError, which names the file.
    """
    try:
        with _whole(path) as file:
            yield file
    except OSError as error:
        raise naming(error, path) from None


def naming(error: OSError, path: Path) -> OSError:
    """Return the error with the name of a file, which a full disk leaves out."""
    if error.filename is None and error.errno is not None:
        error.filename = str(path)
    return error


@contextmanager
def _whole(path: Path) -> Iterator[BinaryIO]:
    try:
        target = Path(os.path.realpath(path))  # a link stays one
        part = target.with_name(f".{secrets.token_hex(8)}.part")
    except ValueError:  # a NUL in it, or the root
        raise OSError(errno.EINVAL, "no file can have this name", str(path)) from None
    if target.exists() and not target.is_file() and not target.is_dir():
        with open(target, "wb", opener=_open_now) as file:
            yield file
        return
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def _open_now(path: str, flags: int) -> int:
    """Open without waiting for somebody who reads a FIFO: without one it is an OSError."""
    made = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    os.set_blocking(made, True)
    return made


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, where there is none. Raises OSError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except ValueError:  # a NUL in it
        raise OSError(errno.EINVAL, "no folder can have this name", str(path)) from None


def write_whole(path: Path, contents: bytes | str) -> None:
    """Write bytes, or text as UTF-8, as `whole_file` does. Raises OSError."""
    with whole_file(path) as file:
        file.write(contents.encode() if isinstance(contents, str) else contents)
