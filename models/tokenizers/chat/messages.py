"""Brings messages into the form in which templates get them, as transformers does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.errors import TokenizerError
from core.reading import shown

#: what programs call a message's reasoning. Templates read the first; gpt-oss's read the second
_REASONING = ("reasoning_content", "thinking", "reasoning")
_END = "END_OF_THE_MESSAGE_TO_CONTINUE "


def plain_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return copies without keys of None, which templates would write as text, and with reasoning
    under the names that they read. Raises TokenizerError for no message, or one that is no object.
    """
    if not messages:
        raise TokenizerError("the conversation is empty, expected at least one message")
    found = []
    for message in messages:
        if not isinstance(message, Mapping):
            raise TokenizerError(f"a message is {shown(message)}, expected an object with role and "
                                 "content")
        kept = {key: value for key, value in message.items() if value is not None}
        reasoning = next((kept[name] for name in _REASONING if name in kept), None)
        if reasoning is not None:
            kept = {"thinking": reasoning, **kept, "reasoning_content": reasoning}
        found.append(kept)
    return found


def marked(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the messages with a mark at the end of the last one's text. Raises TokenizerError
    where it has none."""
    *before, last = messages
    content = last.get("content")
    if isinstance(content, str):
        return [*before, {**last, "content": content + _END}]
    parts = list(content) if isinstance(content, (list, tuple)) else []
    for i in reversed(range(len(parts))):
        if isinstance(parts[i], Mapping) and isinstance(parts[i].get("text"), str):
            parts[i] = {**parts[i], "text": parts[i]["text"] + _END}
            return [*before, {**last, "content": parts}]
    raise TokenizerError("continue_final_message: the last message has no text to continue")


def until_mark(text: str) -> str:
    """Return the rendered text up to the mark. Raises TokenizerError where the template left it
    out."""
    at = text.rfind(_END.strip())
    if at < 0:
        raise TokenizerError("continue_final_message: the chat template does not show the last "
                             "message's text")
    return text[:at] if text.startswith(_END, at) else text[:at].rstrip()
