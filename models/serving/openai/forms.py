"""Finds the form that a body asks for: OpenAI's `response_format`, or `structured_outputs`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.reading import shown
from models.serving.grammar.params import StructuredOutputsParams
from models.serving.openai.error import BodyError

_SCHEMA = ("name", "description", "schema", "strict")


def asked_form(body: Mapping[str, Any]) -> StructuredOutputsParams | None:
    """Return the form that the text of an answer must have, None for any. Raises BodyError or
    OptionError."""
    asked, own = body.get("response_format"), body.get("structured_outputs") or None
    form = None if asked is None else _response_format(asked)
    if form is not None and own is not None:
        raise BodyError("response_format and structured_outputs both say which form the text has; "
                        "leave one of them out", "response_format")
    form = form or StructuredOutputsParams.of(own)
    if form is not None and body.get("tools") and body.get("tool_choice") != "none":
        raise BodyError(f"{form.named} says which form the text has, and tools may be called "
                        "instead: both at once is not built; leave out one of them, or send "
                        "tool_choice: 'none'", form.named, "unsupported_parameter")
    return form


def _response_format(asked: Any) -> StructuredOutputsParams | None:  # noqa: ANN401 - JSON
    name = "response_format"
    kind = asked.get("type") if isinstance(asked, Mapping) else None
    if kind not in ("text", "json_object", "json_schema"):
        raise BodyError(f"{name} is {shown(asked)}, expected an object whose type is 'text', "
                        "'json_object' or 'json_schema'; structured_outputs has other forms", name,
                        "unsupported_parameter")
    allowed = {"type", "json_schema"} if kind == "json_schema" else {"type"}
    if wrong := sorted(map(str, set(asked) - allowed)):
        raise BodyError(f"{name} has {shown(wrong[0])} beside type {kind!r}; leave it out", name)
    if kind == "text":
        return None
    if kind == "json_object":
        return StructuredOutputsParams(json_object=True, named=name)
    found = asked.get("json_schema")
    if not isinstance(found, Mapping) or not isinstance(found.get("name"), str):
        raise BodyError(f"{name}.json_schema is {shown(found)}, expected an object with `name` and "
                        "`schema`", name)
    if wrong := sorted(map(str, set(found) - set(_SCHEMA))):
        raise BodyError(f"{name}.json_schema has {shown(wrong[0])}, expected "
                        f"{', '.join(_SCHEMA)}", name)
    if type(strict := found.get("strict")) not in (bool, type(None)):
        raise BodyError(f"{name}.json_schema.strict is {shown(strict)}, expected true or false; "
                        "a schema holds in either case", name)
    if not isinstance(found.get("schema"), Mapping):
        raise BodyError(f"{name}.json_schema.schema is {shown(found.get('schema'))}, expected a "
                        "JSON schema, an object", name)
    return StructuredOutputsParams(json=dict(found["schema"]), named=name)
