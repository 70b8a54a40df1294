"""Compiles the grammars of requests beside the engine's steps."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from queue import SimpleQueue

from core.errors import QueueFullError
from models.serving.engine import Engine
from models.serving.link.messages import Message, sequence_id
from models.serving.params import SamplingParams


class Preparing:
    """Holds back a command that adds a request whose grammar is not compiled; it comes back among
    `commands` once it is, or once it has turned out to be of no use.

    A thread compiles one grammar after the other; other requests overtake these.
    """

    def __init__(self, engine: Engine, commands: SimpleQueue[Message]) -> None:
        self._engine, self._commands = engine, commands
        self._waiting = SimpleQueue[Message]()
        self._aborted: dict[str, bool] = {}  # by the requests held back
        threading.Thread(target=self._compile, daemon=True).start()

    def holds(self, request_id: str, ids: bytes, params: Sequence[SamplingParams], salt: str,
              ) -> bool:
        """Tell whether a request is held back from now on. Raises QueueFullError where as many are
        held back as may wait."""
        form = params[0].form
        if form is None or self._engine.grammars.compiled(form):
            return False
        if len(self._aborted) >= (most := self._engine.scheduler.max_waiting):
            raise QueueFullError(f"{most} requests wait for their grammars already; send this one "
                                 "again later")
        self._aborted[sequence_id(request_id, 0)] = False
        self._waiting.put((request_id, ids, params, salt))
        return True

    def abort(self, name: str) -> None:
        """Note that a sequence is not wanted any more, if its request is held back."""
        if name in self._aborted:
            self._aborted[name] = True

    def release(self, request_id: str) -> bool:
        """Let go of a request that has come back. Returns whether it is still wanted."""
        return not self._aborted.pop(sequence_id(request_id, 0))

    def _compile(self) -> None:
        while True:
            message = self._waiting.get()
            with suppress(Exception):  # whoever adds the request gets the reason again
                self._engine.grammars.start(message[2][0].form)
            self._commands.put(("prepared", *message))
