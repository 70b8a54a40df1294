"""Looks at requests before they are read: keeps out who has no key and what is too large."""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.serving.http.errors import ApiError, error_response

#: paths that need no key: the page asks for one, and health is for the machine's own tools
OPEN = ("/", "/health")


class Keys:
    """Refuses a request without one of the keys. A key is compared in constant time, and is never
    written anywhere."""

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self._app, self._keys = app, [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN and not self._known(scope):
            error = ApiError(401, "the API key is missing or wrong; send it as "
                             "`Authorization: Bearer KEY`", code="invalid_api_key",
                             headers={"WWW-Authenticate": "Bearer"})
            await error_response(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _known(self, scope: Scope) -> bool:
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        scheme, _, key = given.partition(b" ")
        if scheme.lower() != b"bearer":
            return False
        found = [hmac.compare_digest(key.strip(), known) for known in self._keys]
        return any(found)


class BodyLimit:
    """Refuses a body of more than `limit` bytes, by its header or as it comes."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app, self._limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        error = ApiError(413, f"the body has more than {self._limit:,} bytes, the most that this "
                         "server takes (--body-limit)", code="request_too_large")
        length = next((v for name, v in scope["headers"] if name == b"content-length"), b"0")
        if not length.isdigit() or int(length) > self._limit:
            await error_response(error)(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._limit:
                raise error
            return message
        await self._app(scope, counted, send)


class HeadAsGet:
    """Answers HEAD as GET, as load balancers ask /health; the server leaves out the body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}  # the server's own still says HEAD
        await self._app(scope, receive, send)
