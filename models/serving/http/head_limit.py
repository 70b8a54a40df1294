"""Bounds what a request has beside its body, where httptools parses it."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_LIMIT = 1 << 16  # bytes, as h11 has it
_CHUNK = 16  # bytes around a chunk of a body: its size in hexadecimal digits, and ends of lines


class BoundedHttp(HttpToolsProtocol):
    """Ends a connection whose request line, headers, trailers and extensions of chunks take more
    than HEAD_LIMIT: httptools keeps them all, and no key has been looked at yet."""

    _beside = 0  # bytes of this request that are no body

    def data_received(self, data: bytes) -> None:
        """Take what has come; asyncio gives at most 256 KiB at once."""
        self._beside += len(data)
        super().data_received(data)
        if self._beside > HEAD_LIMIT and not self.transport.is_closing():
            self.send_400_response(f"A request's head has more than {HEAD_LIMIT:,} bytes.")

    def on_body(self, body: bytes) -> None:
        """Note that these bytes are counted by the limit of bodies."""
        self._beside = max(0, self._beside - len(body))
        super().on_body(body)

    def on_chunk_header(self) -> None:
        """Take a chunk's size off the count."""
        self._beside = max(0, self._beside - _CHUNK)

    def on_message_complete(self) -> None:
        """Begin anew with the next request."""
        self._beside = 0
        super().on_message_complete()
