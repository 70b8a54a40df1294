"""Puts a written model in its place: whole or not at all, also when the process is killed.

A model is written in a staging folder beside its target, so that renaming moves no data. The folder
has one name for one target: what a killed export left is found and removed by the next, and a lock
in it, which ends with its process, tells a second export that the first still runs.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.errors import OptionError
from core.interrupts import held_interrupts

_EXCHANGE = 2  # RENAME_EXCHANGE, linux/fs.h


@contextmanager
def staging_folder(out: Path) -> Iterator[Path]:
    """Make an empty folder beside `out`, removed at the end. Raises OptionError while another
    process writes to the same target."""
    staging = out.absolute().with_name(f".{out.name}.exporting")
    lock = None
    try:
        with held_interrupts():
            lock = _locked(staging, out)
        for left in staging.iterdir():  # by an export that was killed
            if left.name != "lock":
                _remove(left)
        yield staging
    finally:
        with held_interrupts():
            if lock is not None:
                shutil.rmtree(staging, ignore_errors=True)
                os.close(lock)


def place_folder(folder: Path, out: Path) -> None:
    """Give `folder` the name `out`. One that is there is exchanged with it in one step where the
    system can, so that there always is a whole one; it then lies where `folder` was."""
    for file in folder.rglob("*"):
        sync(file)
    sync(folder)
    replaced = folder.with_name("replaced")
    if not out.is_dir():
        folder.rename(out)
    elif not _exchange(folder, out):
        out.rename(replaced)
        try:
            folder.rename(out)
        except BaseException:
            replaced.rename(out)
            raise
    sync(out.absolute().parent)


def place_files(folder: Path, out: Path) -> None:
    """Move the files of `folder` beside `out`, the one of its name last. Files that are there and
    equal stay. Where one differs, all that are replaced are taken away first: old weights would
    read wrongly with a new tokenizer. An error brings them back."""
    place, kept = out.absolute().parent, folder.with_name("replaced")
    new = [f.name for f in folder.iterdir() if not _same(f, place / f.name)]
    new.sort(key=lambda name: name == out.name)
    for name in new:
        sync(folder / name)
    old = [name for name in reversed(new) if (place / name).exists()]
    kept.mkdir()
    try:
        if old != [out.name]:  # else one rename replaces it
            for name in old:
                (place / name).rename(kept / name)
        for name in new:
            (folder / name).replace(place / name)
    except BaseException:
        for name in new:
            if (kept / name).exists():
                (kept / name).rename(place / name)
            elif name not in old and not (folder / name).exists():
                (place / name).unlink()
        raise
    sync(place)


def sync(path: Path) -> None:
    """Ask the system to bring a file or folder to the disk, before a name leads to it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _same(file: Path, there: Path) -> bool:
    return there.is_file() and there.read_bytes() == file.read_bytes()


def _locked(staging: Path, out: Path) -> int:
    """Make the folder and hold its lock: the open file, to be closed."""
    import fcntl  # exporting needs a POSIX system, importing this does not
    while True:
        try:
            staging.mkdir(exist_ok=True)
            lock = os.open(staging / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except (FileNotFoundError, FileExistsError):  # the other has just removed its folder
            if os.path.lexists(staging) and not staging.is_dir():
                raise
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock), os.stat(staging / "lock")):
                return lock
        except FileNotFoundError:
            pass
        except BlockingIOError:
            os.close(lock)
            raise OptionError(f"--out {out}: another export to it is running; wait for it, or "
                              "choose another name") from None
        os.close(lock)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step. Returns False where the system or the file system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    here = -100  # AT_FDCWD
    return call is not None and call(here, os.fsencode(one), here, os.fsencode(other),
                                     _EXCHANGE) == 0


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
