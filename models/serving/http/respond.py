"""Answers requests, whole or as a stream of events, and ends their work when the client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from models.serving.http.errors import as_api_error, json_bytes
from models.serving.link.stream import Stream, changes
from models.serving.request import CompletionOutput

R = TypeVar("R")
#: a chunk of a streamed answer, as JSON or as the event that a Frame has made
Chunk: TypeAlias = "dict[str, Any] | bytes"


class ClientLeftError(Exception):
    """The client has closed the connection before its answer was complete."""


async def while_connected(request: Request, work: Awaitable[R]) -> R:
    """Return what `work` returns, but cancel it when the client leaves.

    A server does not do that by itself: it finds out only as it writes. Raises ClientLeftError.
    """
    task = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request.receive))
    try:
        await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientLeftError
        return await task
    finally:
        for one in (task, leaving):
            one.cancel()
        await asyncio.gather(task, leaving, return_exceptions=True)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
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
        finished = one.finish_reason is not None
        ended = finished and not self._finished
        self._text, self._tokens, self._finished = len(one.text), tokens.stop, finished
        return text, tokens, ended


class Frame:
    """Makes events of chunks that differ in one text alone: the JSON around it is made once.

    chunk  one of them, in which "" is the value of `name`, and of no other field of that name
    """

    def __init__(self, chunk: dict[str, Any], name: str) -> None:
        before = b'"%s":' % name.encode()
        head, tail = _event(chunk).split(before + b'""')
        self._head, self._tail = head + before, tail

    def event(self, text: str) -> bytes:
        """Return the event of the chunk with this text."""
        return self._head + json_bytes(text) + self._tail


class Parts(Protocol):
    """Gives the parts of a streamed answer. `begin` is called once, `more` with each stream that
    has changed, `end` once all have finished."""

    def begin(self) -> list[Chunk]: ...

    def more(self, stream: Stream) -> list[Chunk]: ...

    def end(self) -> list[Chunk]: ...


class EventStream(Response):
    """Sends the parts of an answer as server-sent events, those that come together in one piece.
    `streams` end when the client leaves.

    A failure is an `error` event, after which there is no [DONE].
    """

    media_type = "text/event-stream"

    def __init__(self, parts: Parts, streams: Sequence[Stream]) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._parts, self._streams = parts, streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        leaving = asyncio.ensure_future(_left(receive))
        leaving.add_done_callback(self._end)
        try:
            await send({"type": "http.response.start", "status": self.status_code,
                        "headers": self.raw_headers})
            try:
                last = await self._send(send)
            except ClientLeftError:
                return
            except Exception as error:
                last = b"event: error\n" + _event(as_api_error(error).body())
            await send({"type": "http.response.body", "body": last, "more_body": True})
            await asyncio.sleep(0)  # users whose last token came in the same step get it first
            await send({"type": "http.response.body"})
        finally:
            leaving.cancel()
            self._end()

    async def _send(self, send: Send) -> bytes:
        """Send all events but the last ones, which are returned."""
        chunks, running = self._parts.begin(), len(self._streams)
        if chunks:
            await send(_body(chunks))
        async for stream in changes(self._streams):
            chunks = self._parts.more(stream)
            running -= stream.output.finished
            if running and chunks:
                await send(_body(chunks))
        return b"".join(map(_event, [*chunks, *self._parts.end()])) + b"data: [DONE]\n\n"

    def _end(self, _: object = None) -> None:
        """End the streams. Those that run fail, since nobody reads them any more."""
        for stream in self._streams:
            stream.close()
            stream.fail(ClientLeftError())


def _body(chunks: Sequence[Chunk]) -> Message:
    return {"type": "http.response.body", "body": b"".join(map(_event, chunks)), "more_body": True}


def _event(chunk: Chunk) -> bytes:
    return chunk if isinstance(chunk, bytes) else b"data: " + json_bytes(chunk) + b"\n\n"


def left() -> Response:
    """Return the response that nobody reads."""
    return Response(status_code=499)
