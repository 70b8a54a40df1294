"""Knows the requests that run in the engine's process."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from core.errors import OptionError
from models.serving.link.messages import sequence_id
from models.serving.link.stream import Stream


class Running:
    """Holds streams by names of its own, which are never used again: what comes late for one
    request must not reach another of the same id."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._streams: dict[str, Stream] = {}
        self._sequences: dict[str, tuple[Stream, int]] = {}
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._streams)

    def __iter__(self) -> Iterator[Stream]:
        return iter(list(self._streams.values()))

    def check(self, request_id: str) -> None:
        """Raise OptionError for the id of a request that runs."""
        if request_id in self._ids:
            raise OptionError(f"request {request_id!r} is running already; give each request an id "
                              "of its own")

    def add(self, stream: Stream) -> str:
        """Take a stream, and return its key. Raises as `check`."""
        self.check(stream.output.request_id)
        key = stream.key = str(next(self._numbers))
        self._ids.add(stream.output.request_id)
        self._streams[key] = stream
        self._sequences.update({sequence_id(key, one.index): (stream, one.index)
                                for one in stream.output.outputs})
        return key

    def stream(self, key: str) -> Stream | None:
        """Return the stream of a key, None where it has ended."""
        return self._streams.get(key)

    def sequence(self, name: str) -> tuple[Stream, int] | None:
        """Return the stream and the index of a sequence, None where it has ended."""
        return self._sequences.get(name)

    def end(self, name: str) -> None:
        """Note that a sequence runs no more."""
        self._sequences.pop(name, None)

    def forget(self, stream: Stream) -> list[str]:
        """Let a stream go. Returns the names of its sequences that may still run."""
        if self._streams.pop(stream.key, None) is None:
            return []
        self._ids.discard(stream.output.request_id)
        names = [sequence_id(stream.key, one.index) for one in stream.output.outputs]
        return [name for name in names if self._sequences.pop(name, None) is not None]
