"""Reads the lines of an OpenAI batch file and writes those of its results."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from core.reading import parse_json, shown
from models.serving.openai.error import BodyError

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
MOST_BYTES = 16 << 20  # of a line
NONFINITE = "nonfinite_logits"  # the code of a result that the computation failed

Result = dict[str, Any]


@dataclass
class Line:
    """Holds a line of a batch: which request, to which endpoint.

    custom_id  None until it is known to be the line's own
    """

    number: int
    custom_id: str | None = None
    url: str = ""
    body: Mapping[str, Any] = field(default_factory=dict)

    def read(self, data: bytes, seen: set[str]) -> None:
        """Read a line, and add its custom_id to those `seen`. Raises BodyError."""
        if len(data) > MOST_BYTES:
            raise BodyError(f"the line has more than {MOST_BYTES:,} bytes; split its request",
                            code="invalid_json_line")
        try:
            found = parse_json(data)
        except ValueError as error:
            raise BodyError(f"the line is not JSON: {error}", code="invalid_json_line") from None
        if not isinstance(found, dict):
            raise BodyError(f"the line is {shown(found)}, expected an object with custom_id, "
                            "method, url and body", code="invalid_json_line")
        custom_id = found.get("custom_id")
        if not isinstance(custom_id, str) or not custom_id:
            raise BodyError(f"custom_id is {shown(custom_id)}, expected a text that is not empty",
                            "custom_id", "missing_required_parameter")
        if custom_id in seen:
            raise BodyError(f"custom_id {shown(custom_id)} stands in an earlier line too; give "
                            "each line one of its own", "custom_id", "duplicate_custom_id")
        seen.add(custom_id)
        self.custom_id = custom_id
        if found.get("method") != "POST":
            raise BodyError(f"method is {shown(found.get('method'))}, expected 'POST'", "method",
                            "invalid_method")
        url, body = found.get("url"), found.get("body")
        if url not in (COMPLETIONS, CHAT):
            raise BodyError(f"url is {shown(url)}, expected {COMPLETIONS!r} or {CHAT!r}", "url",
                            "invalid_url")
        if not isinstance(body, dict):
            raise BodyError(f"body is {shown(body)}, expected an object", "body",
                            "missing_required_parameter")
        self.url, self.body = url, body

    def succeeded(self, body: Mapping[str, Any]) -> Result:
        """Return the result of a request with an answer."""
        return self._result({"status_code": 200, "request_id": _name("req"), "body": body}, None)

    def failed(self, error: Exception) -> Result:
        """Return the result of a line without an answer."""
        code = getattr(error, "code", None) or "invalid_request"
        return self._result(None, {"code": code, "message": str(error),
                                   "param": getattr(error, "param", None), "line": self.number})

    def _result(self, response: Result | None, error: Result | None) -> Result:
        return {"id": _name("batch_req"), "custom_id": self.custom_id, "response": response,
                "error": error}


def _name(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(12)}"
