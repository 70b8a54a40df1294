"""Renders a chat template in a process of its own, which can be ended.

A template is a program that comes with a model. Jinja's sandbox keeps it from files and from
Python's insides. It bounds neither time nor memory: `'a' * 10**9`, `'a'|center(10**9)` and the like
are single calls, which nothing in this process can interrupt. So one child process renders for all
templates (`render_process`). It is started by the first one and ends with this process.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.errors import TokenizerError
from models.tokenizers.chat.child import Child
from models.tokenizers.chat.render_process import SECONDS

_CHILD = Child(Path(__file__).with_name("render_process.py"), SECONDS)


def render(source: str, values: Mapping[str, Any]) -> str:
    """Return the text, within SECONDS and MIB. Raises TokenizerError with the template's reason."""
    try:
        request = json.dumps({"source": source, "values": values})
    except (TypeError, ValueError, RecursionError) as error:
        raise TokenizerError("the chat template takes messages, tools and documents in JSON's types"
                             f": {error}") from None
    answer = _CHILD.ask(request.encode() + b"\n")
    if "text" not in answer:
        raise TokenizerError(f"the chat template failed: {answer['error']}")
    return str(answer["text"])
