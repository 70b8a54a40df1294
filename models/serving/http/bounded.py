"""Bounds what a request may have before its body, which httptools does not."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD = 64 << 10  # bytes, as many as h11 takes


class BoundedProtocol(HttpToolsProtocol):
    """Refuses a request whose first line and headers do not end after HEAD bytes."""

    _head, _in_body = 0, False

    def data_received(self, data: bytes) -> None:
        self._head += len(data)
        super().data_received(data)
        if self._in_body:
            self._head = 0
        elif self._head > HEAD and not self.transport.is_closing():
            self.send_400_response(f"The request has more than {HEAD} bytes before its body.")

    def on_headers_complete(self) -> None:
        self._in_body = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._head, self._in_body = 0, False
        super().on_message_complete()
