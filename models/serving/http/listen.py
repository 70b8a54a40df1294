"""Takes an address, and runs the application there by uvicorn until a signal."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
from importlib.util import find_spec
from types import FrameType
from typing import TYPE_CHECKING

from core.errors import OptionError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from models.serving.async_engine import AsyncEngine

YOUNG = 10_000  # new objects after which garbage is collected; by 700 it took a tenth of a request
_LINGER = 2  # seconds in which a server that ends still says why
_KEEP_ALIVE = 75  # seconds: longer than clients and proxies keep a connection that idles


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that has its port, before anything is loaded. Raises OptionError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)[0]
        # asyncio sets TCP_NODELAY only where the protocol is stated; else small chunks wait 40 ms
        found = socket.socket(family, kind, protocol)
        try:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(address)
        except OSError:
            found.close()
            raise
        return found
    except (OSError, UnicodeError) as error:
        raise OptionError(f"cannot listen at --host {host} --port {port}: {error}; take another "
                          "port, or 0 for a free one") from None


def run_app(app: FastAPI, listener: socket.socket, engine: AsyncEngine, *, drain: int) -> None:
    """Answer requests until SIGTERM, and a little longer than an engine that hangs.

    drain  seconds that requests may go on after SIGTERM; a second SIGINT ends them at once
    """
    import uvicorn

    class Server(uvicorn.Server):
        """Tells open requests why they end, where they outlast the drain."""

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            super().handle_exit(sig, frame)
            loop = asyncio.get_running_loop()
            why = f"the server was told to end {drain} seconds ago (--drain)"
            loop.call_soon_threadsafe(lambda: loop.call_later(drain, engine.give_up, why))
    signal.signal(signal.SIGTERM, lambda number, frame: None)  # the server drains, and returns here
    server = Server(uvicorn.Config(
        app, http=_protocol(), ws="none", log_level="warning", access_log=False,
        server_header=False,
        timeout_graceful_shutdown=drain + _LINGER, timeout_keep_alive=_KEEP_ALIVE))
    logging.getLogger("uvicorn.error").addFilter(_is_failure)
    engine.on_hung = lambda: asyncio.get_running_loop().call_later(
        _LINGER, setattr, server, "should_exit", True)
    gc.freeze()  # what is imported stays: collections need not look at it while streams wait
    gc.set_threshold(YOUNG)
    server.run(sockets=[listener])


def _protocol() -> type[asyncio.Protocol]:
    """Return what parses requests: httptools, or h11, which bounds their heads by itself."""
    if find_spec("httptools") is None:
        from uvicorn.protocols.http.h11_impl import H11Protocol
        return H11Protocol
    from models.serving.http.head_limit import BoundedHttp
    return BoundedHttp


def _is_failure(record: logging.LogRecord) -> bool:
    """Tell a failure from a request that ends because the server does."""
    kind = record.exc_info[0] if record.exc_info else None
    ended = kind is not None and issubclass(kind, asyncio.CancelledError)
    return not ended and "asyncio.exceptions.CancelledError" not in record.getMessage()
