"""Makes OpenAI's error objects of everything that goes wrong."""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from core.errors import InputError, KernelyardError, LifetimeError, PromptError, QueueFullError
from core.reading import shown
from models.serving.link.process import EngineError
from models.serving.openai.error import BodyError
from models.serving.params import SamplingParams

#: the words with which an error of SamplingParams begins
_FIELDS = frozenset({*(field.name for field in fields(SamplingParams)), "response_format", "tools"})
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
RETRY_AFTER = "1"  # seconds after which a client may send a request again


class ApiError(HTTPException):
    """Holds an answer that is an error.

    param  the field that is wrong
    code   OpenAI's word for what is wrong, such as `model_not_found`
    """

    def __init__(self, status: int, message: str, *, param: str | None = None,
                 code: str | None = None, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, message, dict(headers or {}))
        self.status, self.message, self.param, self.code = status, message, param, code

    def body(self) -> dict[str, Any]:
        """Return OpenAI's error object."""
        kind = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}.get(
            self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param,
                          "code": self.code}}


class JsonResponse(Response):
    """Writes JSON, whatever characters a client has sent."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        return json_bytes(content)


def json_bytes(content: object) -> bytes:
    """Return JSON in UTF-8. Half of a surrogate pair, which UTF-8 lacks, becomes its escape."""
    return _encode(content).encode("utf-8", "backslashreplace")


def as_api_error(error: Exception) -> ApiError:
    """Return the answer to an error: one of a user's input is 400. What is nobody's input is shown
    here in full, and named there."""
    match error:
        case ApiError():
            return error
        case QueueFullError():
            return ApiError(429, str(error), code="queue_full",
                            headers={"Retry-After": RETRY_AFTER})
        case BodyError():
            return ApiError(400, str(error), param=error.param, code=error.code)
        case PromptError():
            return ApiError(400, str(error), param="prompt")
        case InputError():
            first = re.match(r"(?:an id of )?(\w*)", str(error))
            field = first[1] if first is not None else ""
            return ApiError(400, str(error), param=field if field in _FIELDS else None)
        case EngineError() | LifetimeError():
            return ApiError(503, str(error), code="engine_unavailable")
        case KernelyardError():
            return ApiError(500, str(error), code="engine_failed")
    traceback.print_exception(error)
    return ApiError(500, f"the server failed with {type(error).__name__}; its log says more")


def error_response(error: Exception) -> Response:
    """Return the response to an error."""
    found = as_api_error(error)
    return JsonResponse(found.body(), found.status, headers=found.headers)


def _validation(request: Request, error: RequestValidationError) -> ApiError:
    """Name the first field that has a wrong value."""
    if isinstance(error.body, bytes):  # it is read as JSON where its header says so
        found = request.headers.get("content-type")
        said = "no Content-Type" if found is None else f"the Content-Type {shown(found)}"
        return ApiError(400, f"the body has {said}, expected application/json")
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return ApiError(400, f"the body is not JSON: {first.get('ctx', {}).get('error', '')}")
    names = [str(part) for part in first["loc"] if part != "body"]
    where = names[0] if names else None
    return ApiError(400, f"{'.'.join(names) or 'the body'}: {first['msg']}", param=where)


def _why(request: Request, error: HTTPException) -> str:
    """Say what is wrong with a request that no endpoint has seen."""
    path = shown(request.url.path)
    match error.status_code:
        case 404:
            return f"the path {path} does not exist; /openapi.json has those that do"
        case 405:
            expected = (error.headers or {}).get("Allow", "another one")
            return f"{path} does not take the method {request.method}, expected {expected}"
    if error.__cause__:  # JSON that nests too deep, integers of over 4,300 digits
        return f"the body cannot be read: {error.__cause__}"
    return str(error.detail)


def install(app: FastAPI) -> None:
    """Let every error of an application be answered with an error object."""
    async def answer(request: Request, error: Exception) -> Response:
        if isinstance(error, RequestValidationError):
            error = _validation(request, error)
        elif isinstance(error, HTTPException) and not isinstance(error, ApiError):
            error = ApiError(error.status_code, _why(request, error), headers=error.headers)
        return error_response(error)
    for kind in (ApiError, KernelyardError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, answer)
