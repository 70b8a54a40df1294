"""Keeps the questions that have been sent to the engine's process until it answers."""

from __future__ import annotations

import asyncio
from typing import Any


class Questions:
    """Holds a future for each question that is open, by its number."""

    def __init__(self) -> None:
        self._open: dict[int, asyncio.Future[Any]] = {}

    def add(self) -> tuple[int, asyncio.Future[Any]]:
        """Return a number that no open question has, and the future of its answer."""
        number = max(self._open, default=0) + 1
        future = self._open[number] = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda _: self._open.pop(number, None))
        return number, future

    def answer(self, number: int, value: object) -> None:
        """Give a question its answer; an exception is raised where that is awaited."""
        future = self._open.get(number)
        if future is None or future.done():
            return
        if isinstance(value, Exception):
            future.set_exception(value)
        else:
            future.set_result(value)

    def fail(self, error: Exception) -> None:
        """Answer every open question with an error."""
        for number in list(self._open):
            self.answer(number, error)
