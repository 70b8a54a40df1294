"""Renders a chat template in a process of its own, which can be ended.

A template is a program that comes with a model. Jinja's sandbox keeps it from files and from
Python's insides. It bounds neither time nor memory: `'a' * 10**9`, `'a'|center(10**9)` and the like
are single calls, which nothing in this process can interrupt. So one child process renders for all
templates (`render_process`). It is started by the first one and ends with this process.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

from core.errors import TokenizerError
from models.tokenizers.chat.render_process import SECONDS


class _Child:
    """Runs the process: a line of JSON in, a line of JSON out."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = Lock()

    def ask(self, request: bytes) -> dict[str, str]:
        """Return the answer; an `error` where the process ended instead."""
        with self._lock:
            process = self._process = self._process or _start()
            assert process.stdin is not None and process.stdout is not None  # pipes, by _start
            try:
                process.stdin.write(request)
                process.stdin.flush()
                line = process.stdout.readline()
                if line.endswith(b"\n"):
                    answer: dict[str, str] = json.loads(line)
                    return answer
            except OSError:  # it ended before it read all
                pass
            except BaseException:  # Ctrl-C: its answer must not be the next one's
                self.close()
                raise
            self.close(patience=1.0)  # it is ending by itself
            late = process.returncode == -signal.SIGALRM
            return {"error": f"it took more than {SECONDS} seconds" if late else
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


def _start() -> subprocess.Popen[bytes]:
    program = Path(__file__).with_name("render_process.py")
    return subprocess.Popen([sys.executable, "-I", str(program), json.dumps(sys.path)],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)


_CHILD = _Child()
atexit.register(_CHILD.close)
os.register_at_fork(after_in_child=_CHILD.forget)


def render(source: str, values: Mapping[str, Any]) -> str:
    """Return the text, within SECONDS and MIB. Raises TokenizerError with the template's reason."""
    try:
        request = json.dumps({"source": source, "values": values})
    except (TypeError, ValueError, RecursionError) as error:
        raise TokenizerError("the chat template takes messages, tools and documents in JSON's types"
                             f": {error}") from None
    answer = _CHILD.ask(request.encode() + b"\n")
    if "text" not in answer:
        raise TokenizerError(f"the chat template failed: {answer['error']}")
    return answer["text"]
