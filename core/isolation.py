"""Notes in shared memory which kernel a process calls, so that the death of the process has a name.

The process that works sets `active`; kernels then note each call of a plugin's function. The
process that waits reads the note once the other has died, or calls too long.
"""

from __future__ import annotations

import faulthandler
import json
import mmap
import os
import re
import signal
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from core.errors import OptionError

TIMEOUT_S = 120.0  #: seconds that one step may take unless the user says otherwise
START_S = 60.0  #: seconds that a plugin may take at least to be imported, or in a hook
_SIZE, _HEAD = 8192, struct.Struct("<III")  # state, calls so far, bytes of the note
_STARTED, _CALLING, _BETWEEN, _ENDED = range(4)
_GRACE_S = 2.0  # seconds in which a process writes where it stands, once told to end


@dataclass(frozen=True)
class Note:
    """Hold which call a process was in.

    who     node, kernel, distribution, dimensions
    what    the function of the kernel: launch, bind, ...
    home    where the plugin's files lie
    kernel  its id; empty where it is a plugin that starts
    """

    who: str
    what: str
    home: str
    kernel: str

    def encoded(self) -> bytes:
        return json.dumps({**vars(self), "who": self.who[:_SIZE // 4]}).encode()


class Notes:
    """Map the file `path`: the process that works writes, the one that waits reads."""

    def __init__(self, path: Path) -> None:
        self.path, self._calls = path, 0
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _SIZE)

    @classmethod
    def create(cls, folder: Path) -> Notes:
        """Make the file, empty, in a folder."""
        path = folder / "notes"
        path.write_bytes(bytes(_SIZE))
        return cls(path)

    @property
    def lines(self) -> Path:
        """Return the file of the lines in which the process stood when a signal ended it."""
        return self.path.with_suffix(".lines")

    def enter(self, note: bytes) -> None:
        """Note a call that begins now."""
        self._calls += 1
        self._map[_HEAD.size:_HEAD.size + len(note)] = note
        _HEAD.pack_into(self._map, 0, _CALLING, self._calls & 0xFFFFFFFF, len(note))

    def leave(self) -> None:
        """Note that the call has returned."""
        self._map[0] = _BETWEEN

    def end(self) -> None:
        """Note that the work is done: what comes now is the end of the process."""
        self._map[0] = _ENDED

    @property
    def calls(self) -> int | None:
        """Return the number of the call that is under way, None between calls."""
        state, calls, _ = _HEAD.unpack_from(self._map, 0)
        return calls if state == _CALLING else None

    def told(self, ending: str) -> str:
        """Return who was at work when the process ended in this way, and where it stood."""
        state, note = self._map[0], self.note
        if note is None:
            return f"the process {ending} before a kernel was called"
        place = _place(self.lines, note.home)
        if state != _CALLING and not note.kernel:
            return f"the process {ending} after {note.what} of {note.who}"
        if state == _CALLING:
            inside = "" if note.what == "launch" else f" in {note.what}"
            # malloc aborts where it finds its heap damaged, which another call may have done
            before = "; it or a kernel before it damaged the process" if "SIGABRT" in ending else ""
            return f"{note.who}: {ending}{inside}{place}{before}"
        when = "at the end" if state == _ENDED else "between two calls"
        return (f"the process {ending} {when}; the last call was {note.what} of {note.who}. That "
                "kernel or one before it damaged the process")

    @property
    def note(self) -> Note | None:
        """Return the last call, None before the first."""
        length = _HEAD.unpack_from(self._map, 0)[2]
        try:
            return Note(**json.loads(self._map[_HEAD.size:_HEAD.size + length]))
        except ValueError:  # none yet, or the process ended while it wrote
            return None

    @property
    def ended(self) -> bool:
        return self._map[0] == _ENDED


#: of the process that works, in this process; None where nobody waits for it
active: Notes | None = None
_log: IO[str] | None = None


def begin(path: Path) -> Notes:
    """Note from now on, in the file that the waiting process made, what this process calls."""
    global active, _log
    active = Notes(path)
    _log = active.lines.open("w")
    faulthandler.enable(_log, all_threads=False)
    return active


@contextmanager
def starting(who: str, what: str) -> Iterator[None]:
    """Note that a plugin starts, by `what`, where a process waits for this one."""
    notes = active
    if notes is not None:
        notes.enter(Note(who, what, "", "").encoded())
    try:
        yield
    finally:
        if notes is not None:
            notes.leave()


class Watch:
    """Tell when the process that works has been in one call for longer than `limit` seconds."""

    def __init__(self, notes: Notes, limit_s: float) -> None:
        self._notes, self.limit, self._step = notes, limit_s, limit_s
        self._calls: int | None = None
        self._since = 0.0

    def late(self) -> bool:
        """Return whether the present call has lasted for the limit. Ask often."""
        calls, now = self._notes.calls, time.monotonic()
        if calls is None or calls != self._calls:
            self._calls, self._since, self.limit = calls, now, self._step
            return False
        if now - self._since <= self.limit:
            return False
        note = self._notes.note
        if note is not None and not note.kernel:  # what starts may compile, or load libraries
            self.limit = max(self.limit, START_S)
        return now - self._since > self.limit


def stop(pid: int, wait: Callable[[float], Any]) -> None:
    """End a process: first so that it notes where it stands. `wait` waits for its end, for so many
    seconds."""
    for number in (signal.SIGABRT, getattr(signal, "SIGKILL", signal.SIGTERM)):
        try:
            os.kill(pid, number)
        except OSError:  # it has ended
            return
        wait(_GRACE_S)


def ending(code: int) -> str:
    """Say in words how a process ended, by its exit code; a negative one is a signal's."""
    if code >= 0:
        return f"ended Python with exit code {code}"
    try:
        return f"killed by signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"killed by signal {-code}"


def check_limit(limit_s: float | None, isolate: bool) -> float:
    """Return the seconds that a step may take. Raises OptionError for what is no such number."""
    if limit_s is None:
        return TIMEOUT_S
    if not isolate:
        raise OptionError("--step-timeout goes with --isolate: only a process apart can be ended")
    if not 0 < limit_s <= 1e9:
        raise OptionError(f"--step-timeout {limit_s:g}: expected seconds, above 0")
    return limit_s


def _place(lines: Path, home: str) -> str:
    """Return ", at FILE:LINE" for the plugin's line in which the process stood, if it is known."""
    try:
        found = re.findall(r'File "(.*)", line (\d+) in ', lines.read_text(errors="replace"))
    except OSError:
        return ""
    return next((f", at {file}:{line}" for file, line in found if file.startswith(home)), "")
