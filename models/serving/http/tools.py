"""Finds the calls of tools in what a model has written, for the families whose form is known.

Qwen and Hermes write `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, Llama 3 the object
alone, with `parameters`. What names no tool of the request, or is no JSON, stays text.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from models.tokenizers.streaming import StopStrings

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_BLOCK = re.compile(f"{_OPEN}(.*?)(?:{_CLOSE}|$)", re.S)


class ToolText:
    """Divides the growing text of one answer into what is shown and what calls tools.

    names   the tools that may be called
    source  the chat template, which shows how the model writes calls
    """

    def __init__(self, names: frozenset[str], source: str) -> None:
        self._names, self._tagged = names, _OPEN in source
        self._text, self._shown = "", 0
        self._before = StopStrings([_OPEN])

    def push(self, piece: str) -> str:
        """Return the text that is surely part of no call."""
        self._text += piece
        if self._tagged:
            new = "" if self._before.hit else self._before.push(piece)
        else:
            held = self._text.lstrip()[:1] in ("", "{")
            new = "" if held else self._text[self._shown:]
        self._shown += len(new)
        return new

    def finish(self) -> tuple[str, list[dict[str, Any]]]:
        """Return the rest of the text, and the calls as OpenAI writes them."""
        rest = self._text[self._shown:]
        found = self._calls()
        if not found:
            return rest, []
        return "", [{"index": i, "id": f"call_{secrets.token_hex(12)}", "type": "function",
                     "function": {"name": name, "arguments": arguments}}
                    for i, (name, arguments) in enumerate(found)]

    def _calls(self) -> list[tuple[str, str]]:
        if self._tagged:
            objects = [_json(block) for block in _BLOCK.findall(self._text)]
        else:
            objects = _objects(self._text.strip())
        calls = [_call(one) for one in objects]
        known = [call for call in calls if call is not None and call[0] in self._names]
        return known if len(known) == len(calls) else []


def tool_names(tools: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """Return the names of functions that may be called."""
    functions = [tool.get("function", tool) for tool in tools]
    return frozenset(str(f.get("name")) for f in functions if isinstance(f, Mapping))


def _call(found: object) -> tuple[str, str] | None:
    """Return name and arguments, as JSON, of an object that is a call. Python reads NaN and 1e999,
    which JSON lacks: these are none."""
    if not isinstance(found, dict) or not isinstance(found.get("name"), str):
        return None
    arguments = found.get("arguments", found.get("parameters"))
    try:
        text = json.dumps(arguments, allow_nan=False)
    except ValueError:
        return None
    return (found["name"], text) if isinstance(arguments, dict) else None


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _objects(text: str) -> list[object]:
    """Return the objects of a text that holds nothing else; `;` may stand between them."""
    found, decoder = list[object](), json.JSONDecoder()
    while text.startswith("{"):
        try:
            one, end = decoder.raw_decode(text)
        except (ValueError, RecursionError):
            return []
        found.append(one)
        text = text[end:].lstrip().removeprefix(";").lstrip()
    return [] if text else found
