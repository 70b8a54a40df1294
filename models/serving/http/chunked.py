"""Writes the chunks of a streamed answer: each token passes here."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

HEAD = 64 << 10  # bytes that a request may have before its body


class ChunkConnection(h11.Connection):
    """Frames a chunk by itself. h11 writes the same bytes, but goes through its states for each,
    which took a tenth of HTTP's time."""

    _chunked = False

    def send(self, event: Any) -> Any:  # noqa: ANN401 - h11's overloads: bytes, or None at the end
        if (self._chunked and type(event) is h11.Data and event.data
                and self.our_state is h11.SEND_BODY):
            return b"%x\r\n%b\r\n" % (len(event.data), event.data)
        output = super().send(event)
        if type(event) is h11.Response and output is not None:
            self._chunked = b"\r\ntransfer-encoding: chunked\r\n" in output.lower()
        return output


class ChunkProtocol(H11Protocol):
    """Is uvicorn's protocol on such a connection."""

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any],
                 _loop: asyncio.AbstractEventLoop | None = None) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn = ChunkConnection(h11.SERVER, HEAD)
