"""Looks at an engine's steps from beside, so that a kernel that never returns has a name."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from core.verify.live.stuck import CallInProgress, call_of


class StepWatch:
    """Tells when the thread that made it is in one kernel, or in one step that calls none, for too
    long. Steps that end in time cost it nothing: it looks at the thread's frames from another.

    limit_s  seconds
    """

    def __init__(self, limit_s: float) -> None:
        self._limit, self._thread = limit_s, threading.get_ident()
        self._steps, self._inside = 0, False
        self._seen: tuple[int, bool] = 0, False
        self._call: CallInProgress | None = None
        self._since = time.monotonic()

    @contextmanager
    def step(self) -> Iterator[None]:
        """Note that the thread is in a step; outside of one it may wait as long as it likes."""
        self._steps, self._inside = self._steps + 1, True
        try:
            yield
        finally:
            self._inside = False

    def late(self) -> str | None:
        """Return what has taken too long, None while nothing has. Ask often, in another thread."""
        seen, frame = (self._steps, self._inside), sys._current_frames().get(self._thread)
        call = call_of(frame) if seen == self._seen else None
        same = call.same_as(self._call) if call is not None else self._call is None
        at_work = call is not None or self._inside
        if seen != self._seen or not same or not at_work:
            self._seen, self._call, self._since = seen, call, time.monotonic()
            return None
        if time.monotonic() - self._since <= self._limit:
            return None
        if call is not None:
            return call.late(self._limit)
        where = "" if frame is None else f", at {frame.f_code.co_filename}:{frame.f_lineno}"
        return f"a step took over {self._limit:g} s in which no kernel was called{where}"
