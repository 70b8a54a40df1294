"""Holds Ctrl-C back while something must not be left half done, or would lose it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def held_interrupts() -> Iterator[None]:
    """Let a SIGINT act when the block has ended, not in it.

    Python raises KeyboardInterrupt anywhere. In a callback of a C library (LLVM's) it is printed
    and forgotten, and between two renames it leaves one done. Other threads get no signals: there
    the block runs as it is.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[FrameType | None] = []
    before = signal.signal(signal.SIGINT, lambda _, frame: came.append(frame))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)
        if came and callable(before):
            before(signal.SIGINT, came[0])
        elif came and before != signal.SIG_IGN:
            signal.raise_signal(signal.SIGINT)
