"""Makes standard input, output and error what every command relies on, closed or full as they are.

A number below 3 that is closed would be that of the next file opened: messages would go into it.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Any


class _Lossy(io.FileIO):
    """Loses what cannot be written: no result depends on what standard error says."""

    def write(self, data: Any, /) -> int:  # noqa: ANN401 - bytes of any kind
        try:
            return super().write(data) or 0
        except OSError:  # a full disk, opened for reading, a reader that has gone
            return memoryview(data).nbytes


def settle_streams() -> None:
    """Open what is closed as /dev/null, except `sys.stdout`, and let standard error lose what it
    cannot take."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it has the lowest number
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - until the end
    old = sys.stderr
    if old is None or old is sys.__stderr__:  # a test or a notebook has its own
        sys.stderr = io.TextIOWrapper(
            io.BufferedWriter(_Lossy(2, "w", closefd=False)), old.encoding if old else "utf-8",
            "backslashreplace", line_buffering=True)
