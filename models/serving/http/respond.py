"""Answers requests, whole or as a stream of events, and ends their work when the client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Sequence
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from models.serving.http.errors import as_api_error, json_bytes
from models.serving.link.stream import Stream, changes
from models.serving.request import CompletionOutput

R = TypeVar("R")


class ClientLeftError(Exception):
    """The client has closed the connection before its answer was complete."""


async def while_connected(request: Request, work: Awaitable[R]) -> R:
    """Return what `work` returns, but cancel it when the client leaves.

    A server does not do that by itself: it finds out only as it writes. Raises ClientLeftError.
    """
    task = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientLeftError
        return await task
    finally:
        for one in (task, leaving):
            one.cancel()
        await asyncio.gather(task, leaving, return_exceptions=True)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def collect(streams: Sequence[Stream]) -> None:
    """Wait until all streams are finished; end them if that fails or is cancelled."""
    try:
        async for _ in changes(streams):
            pass
    finally:
        for stream in streams:
            stream.close()


class News:
    """Cuts off of the growing output of one text what was sent before."""

    def __init__(self) -> None:
        self._text = self._tokens = 0
        self._finished = False

    def take(self, one: CompletionOutput) -> tuple[str, slice, bool]:
        """Return the new text, which tokens are new, and whether the text has just ended."""
        text, tokens = one.text[self._text:], slice(self._tokens, len(one.token_ids))
        ended = one.finished and not self._finished
        self._text, self._tokens, self._finished = len(one.text), tokens.stop, one.finished
        return text, tokens, ended


class Frame:
    """Writes chunks that differ in one text alone: the JSON around it is made once.

    chunk  one of them, in which "" is the value of `name`, and of no other field of that name
    """

    def __init__(self, chunk: dict[str, Any], name: str) -> None:
        before = b'"%s":' % name.encode()
        self._head, tail = json_bytes(chunk).split(before + b'""')
        self._head, self._tail = b"data: " + self._head + before, tail + b"\n\n"

    def event(self, text: str) -> bytes:
        """Return the event of the chunk with this text."""
        return self._head + json_bytes(text) + self._tail


async def events(chunks: AsyncIterator[dict[str, Any] | bytes]) -> AsyncGenerator[bytes, None]:
    """Yield server-sent events of chunks, some of which are events already. A failure is an `error`
    event, after which there is no [DONE]."""
    try:
        async for chunk in chunks:
            yield (chunk if isinstance(chunk, bytes) else
                   b"data: " + json_bytes(chunk) + b"\n\n")
    except Exception as error:
        yield b"event: error\ndata: " + json_bytes(as_api_error(error).body()) + b"\n\n"
        return
    yield b"data: [DONE]\n\n"


class EventStream(StreamingResponse):
    """Sends chunks as server-sent events; `streams` end when the client leaves."""

    def __init__(self, chunks: AsyncIterator[dict[str, Any] | bytes], streams: Sequence[Stream],
                 ) -> None:
        super().__init__(events(chunks), media_type="text/event-stream",
                         headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            for stream in self._streams:
                stream.close()


def left() -> Response:
    """Return the response that nobody reads."""
    return Response(status_code=499)
