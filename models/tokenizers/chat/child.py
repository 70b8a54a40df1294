"""Child: asks a program in a process of its own, which can be ended."""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any


class Child:
    """Runs a program: a line of JSON in, a line of JSON out.

    It is started when it is first asked, again after it has ended, and ends with this process.

    program  a file that is run without the environment's settings; its argument is `sys.path`
    seconds  after which it ends by SIGALRM instead of answering
    """

    def __init__(self, program: Path, seconds: int) -> None:
        self._program, self._seconds = program, seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = Lock()
        atexit.register(self.close)
        os.register_at_fork(after_in_child=self.forget)

    def ask(self, request: bytes) -> dict[str, Any]:
        """Return the answer; an `error` where the process ended instead."""
        with self._lock:
            process = self._process = self._process or self._start()
            assert process.stdin is not None and process.stdout is not None  # pipes, by _start
            try:
                process.stdin.write(request)
                process.stdin.flush()
                line = process.stdout.readline()
                if line.endswith(b"\n"):
                    answer: dict[str, Any] = json.loads(line)
                    return answer
            except OSError:  # it ended before it read all
                pass
            except BaseException:  # Ctrl-C: its answer must not be the next one's
                self.close()
                raise
            self.close(patience=1.0)  # it is ending by itself
            late = process.returncode == -signal.SIGALRM
            return {"error": f"it took more than {self._seconds} seconds" if late else
                    f"its process ended with code {process.returncode}"}

    def close(self, patience: float = 0.0) -> None:
        """End the process, after `patience` seconds in which it may end by itself."""
        process, self._process = self._process, None
        if process is not None:
            try:
                process.wait(patience)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(OSError):  # what was not written yet
                        pipe.close()

    def forget(self) -> None:
        """Leave the process to the parent, after a fork."""
        self._process, self._lock = None, Lock()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-I", str(self._program), json.dumps(sys.path)],
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE)
