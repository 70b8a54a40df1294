"""Opens files that a user names: regular ones only, of bounded size, and JSON by the letter.

A FIFO would wait for a writer, a device may never end, and a small JSON text can hold numbers and
nesting that cost minutes or a traceback. Everything here raises OSError or ValueError, which
readers turn into errors of their own.
"""

from __future__ import annotations

import errno
import json
import os
import re
import reprlib
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

MIB = 1 << 20
_DIGITS = 40  # transformers writes 10**30 for "no limit"; no number of a model needs more
_KINDS = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a FIFO"), (stat.S_ISSOCK, "a socket"),
          (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"))

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")

#: how git begins what it leaves in place of a large file, and the most bytes that this has
_POINTER, POINTER_BYTES = b"version https://git-lfs.github.com/", 1024

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80
_short.maxlong = 45


def open_regular(path: Path) -> BinaryIO:
    """Open for reading in binary. Raises OSError, with a `strerror` for people, unless the path
    leads to a regular file that is no pointer of Git LFS; it never waits."""
    _require_regular(path, os.stat(path).st_mode)  # before opening: that alone can change a device
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    file = open(os.open(path, flags), "rb")  # noqa: SIM115 - the caller closes it
    try:
        found = os.fstat(file.fileno())
        _require_regular(path, found.st_mode)
        if found.st_size < POINTER_BYTES and file.peek(len(_POINTER)).startswith(_POINTER):
            raise OSError(errno.EINVAL, "git has left a pointer of Git LFS in place of the file: "
                          "run `git lfs pull` in its folder", str(path))
    except OSError:
        file.close()
        raise
    return file


def read_file(path: Path, limit: int) -> bytes:
    """Return the contents of a regular file of at most `limit` bytes. Raises OSError."""
    with open_regular(path) as file:
        data = file.read(limit + 1) or b""
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"it has more than {limit} bytes, the most that such a file "
                      "needs", str(path))
    return data


def read_json(path: Path, limit: int) -> Any:  # noqa: ANN401 - JSON
    """Return what `parse_json` makes of a file. Raises OSError or ValueError."""
    return parse_json(read_file(path, limit))


def parse_json(data: bytes | str) -> Any:  # noqa: ANN401 - JSON
    """Return the value of a JSON text in UTF-8. NaN and Infinity are read, as transformers writes
    them. Raises ValueError also for a key that is there twice, an integer of more than 40 digits,
    too many levels, and a text that UTF-8 cannot hold."""
    text = data if isinstance(data, str) else data.decode("utf-8")
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_int=_integer)
        if _SURROGATE.search(text):  # whole pairs are one character; half of one cannot be encoded
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it has too many levels of lists and objects") from None
    except UnicodeEncodeError:
        raise ValueError("a text in it holds half of a surrogate pair") from None
    return value


def shown(value: object) -> str:
    """Return a value's repr for an error message, shortened in length and depth."""
    try:
        return _short.repr(value)
    except Exception:  # Python shows no integer of over 4,300 digits; a repr may do anything
        return (f"an integer of {value.bit_length():,} bits" if isinstance(value, int) else
                f"{type(value).__name__}(...)")


def _require_regular(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = next((name for test, name in _KINDS if test(mode)), "no file")
        raise OSError(errno.EINVAL, f"it is {kind}, expected a regular file", str(path))


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        twice = next(k for k, _ in pairs if k in seen or seen.add(k))  # type: ignore[func-returns-value]
        raise ValueError(f"key {shown(twice)} is there twice in one object")
    return made


def _integer(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise ValueError(f"a number has {len(digits)} digits, expected at most {_DIGITS}")
    return int(digits)
