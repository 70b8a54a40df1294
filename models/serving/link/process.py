"""Starts the engine's process and talks with it."""

from __future__ import annotations

import atexit
import os
import pickle
import re
import signal
import tempfile
import threading
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from core.errors import KernelyardError
from core.isolation import stop
from models.serving.engine import Engine
from models.serving.link.messages import EngineFacts, Message
from models.serving.link.worker import run_worker

PATIENCE = 5.0  # seconds in which a process may end by itself


class EngineError(KernelyardError):
    """The engine's process has ended, or says nothing; no request can be served."""


class EngineProcess:
    """Holds the process that runs an engine. Close it, or the process stays.

    opener   opens the engine there. It is pickled: a function of a module, or a `partial` of one
    limit_s  seconds that one kernel may take
    """

    def __init__(self, opener: Callable[[], Engine], limit_s: float) -> None:
        context = get_context("spawn")  # a fork would inherit threads' locks and a GPU's state
        self._pipe, theirs = context.Pipe()
        self._limit, self._silent = limit_s, False
        file, name = tempfile.mkstemp(prefix="kernelyard-engine-")
        os.close(file)
        self._lines = Path(name)  # where the process writes in which lines it stood when it ended
        self._process = context.Process(target=run_worker, args=(theirs, opener, limit_s, name),
                                        name="kernelyard-engine")
        self._process.start()
        theirs.close()
        self._commands = SimpleQueue[Message | None]()
        self._threads: list[threading.Thread] = []
        atexit.register(self.close)

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def ready(self) -> EngineFacts:
        """Wait until the engine is open. Raises the error that kept it from that."""
        try:
            ((kind, what),) = pickle.loads(self._pipe.recv_bytes())
        except (EOFError, OSError):
            raise EngineError(f"{self.reason()} while it loaded the model") from None
        if kind == "failed":
            self._process.join()
            raise what
        facts: EngineFacts = what
        return facts

    def listen(self, receive: Callable[[list[Message]], None],
               ended: Callable[[str], None]) -> None:
        """Call `receive` with what comes, and `ended` once with a reason, in a thread."""
        def read() -> None:
            try:
                while True:
                    receive(pickle.loads(self._pipe.recv_bytes()))
            except (EOFError, OSError):
                ended(self.reason())
        self._threads = [threading.Thread(target=read, daemon=True, name="engine-reader"),
                         threading.Thread(target=self._write, daemon=True, name="engine-writer")]
        for thread in self._threads:
            thread.start()

    def send(self, *command: Any) -> None:  # noqa: ANN401 - one of worker's commands
        """Send a command; it never waits."""
        self._commands.put(command)

    def reason(self) -> str:
        """Say how the process ended, and in which line it stood if a signal ended it."""
        self._process.join(5)
        code, place = self._process.exitcode, place_of(self._lines)
        if self._silent:
            return f"the engine's process has said nothing for {self._limit:g} seconds{place}"
        if code is None:
            return "the engine's process has closed its pipe"
        if code < 0:
            return f"the engine's process was killed by {signal.Signals(-code).name}{place}"
        return f"the engine's process ended with code {code}"

    def stop(self) -> str:
        """End a process that has been silent for too long. Returns the `reason`."""
        self._silent = True
        if self._process.pid is not None:
            stop(self._process.pid, self._process.join)
        return self.reason()

    def close(self) -> None:
        """End the process: by force while it loads, and where it does not end in time."""
        atexit.unregister(self.close)
        if self._threads:
            self._commands.put(("close",))
            self._commands.put(None)
            self._process.join(PATIENCE)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
        for thread in self._threads:
            thread.join()
        self._pipe.close()
        self._lines.unlink(missing_ok=True)

    def _write(self) -> None:
        try:
            while (command := self._commands.get()) is not None:
                self._pipe.send_bytes(pickle.dumps([command], pickle.HIGHEST_PROTOCOL))
        except OSError:  # the reader says so
            pass


def place_of(lines: Path) -> str:
    """Return ", at FILE:LINE" for the innermost line that Python's fault handler wrote, if any."""
    try:
        found = re.search(r'File "(.*)", line (\d+) in ', lines.read_text(errors="replace"))
    except OSError:
        return ""
    return "" if found is None else f", at {found[1]}:{found[2]}"
