"""Finds the prompts in the bodies of completions and chats."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from core.errors import TokenizerError
from core.reading import shown
from models.serving.conversation import ConversationEncoder
from models.serving.openai.error import BodyError
from models.serving.openai.tool_calls import offered_tools
from models.serving.prompt import checked_text
from models.tokenizers.base import Tokenizer

#: ids, and the text that they came from, if one was given
Encoded: TypeAlias = tuple[list[int], str | None]

MOST_PROMPTS = 2048  # of one request
_FIELDS = {"messages", "tools", "documents", "add_generation_prompt", "continue_final_message",
           "template"}


def completion_prompts(body: Mapping[str, Any], tokenizer: Tokenizer) -> list[Encoded]:
    """Return the prompts of a completion. Raises BodyError, PromptError or TokenizerError."""
    prompt = body.get("prompt")
    if isinstance(prompt, str) or (isinstance(prompt, list) and prompt and all(
            type(i) is int for i in prompt)):
        prompt = [prompt]
    if not isinstance(prompt, list) or not all(isinstance(p, (str, list)) for p in prompt):
        raise BodyError(f"prompt is {shown(prompt)}, expected a text, token ids, or a list of "
                        "these", "prompt")
    if not 1 <= len(prompt) <= MOST_PROMPTS:
        raise BodyError(f"prompt has {len(prompt)} prompts, expected 1 to {MOST_PROMPTS}", "prompt")
    special = body.get("add_special_tokens") is False
    return [(tokenizer.encode(checked_text(p), special=special), p) if isinstance(p, str)
            else (p, None) for p in prompt]


def chat_prompt(body: Mapping[str, Any], encoder: ConversationEncoder | None) -> Encoded:
    """Return the conversation of a chat as the template writes it. Raises BodyError, and
    PromptError for control tokens in messages that cannot be told apart from the template's."""
    if encoder is None:
        raise BodyError("the model has no chat template: it is a base model; use /v1/completions",
                        "messages", "no_chat_template")
    messages, tools = flat_messages(body.get("messages")), offered_tools(body)
    documents, more = body.get("documents"), body.get("chat_template_kwargs") or {}
    source = encoder.template.choose(tools=tools is not None)
    for name, value in (("tools", tools), ("documents", documents)):
        if value and name not in source:
            raise BodyError(f"the chat template takes no {name}; leave them out", name,
                            "unsupported_parameter")
    if wrong := sorted(_FIELDS & set(more)):
        raise BodyError(f"chat_template_kwargs has {', '.join(wrong)}, which are fields of the "
                        "request", "chat_template_kwargs")
    try:
        ids = encoder.encode(messages, tools=tools, documents=documents, **more,
                             add_generation_prompt=body.get("add_generation_prompt"),
                             continue_final_message=bool(body.get("continue_final_message")))
    except TokenizerError as error:
        raise BodyError(str(error), "messages", "chat_template") from None
    return ids, None


def check_texts(prompts: int, n: int, most: int) -> None:
    """Raise BodyError for a request of more texts than may wait: it could never be accepted."""
    if prompts * n > most:
        raise BodyError(f"the request asks for {prompts * n:,} texts, and at most {most:,} may "
                        "wait (--max-queue): lower n, or send fewer prompts at once",
                        "n" if n > 1 else "prompt")


def flat_messages(messages: object) -> list[dict[str, Any]]:
    """Return messages whose contents are texts. Raises BodyError for a picture or a sound."""
    if not isinstance(messages, list) or not messages or not all(
            isinstance(m, Mapping) and isinstance(m.get("role"), str) for m in messages):
        raise BodyError(f"messages is {shown(messages)}, expected a list of objects with `role` "
                        "and `content`", "messages")
    return [{**m, "content": _flat(m.get("content")),
             **({"tool_calls": [_opened(call) for call in calls]}
                if isinstance(calls := m.get("tool_calls"), list) and calls else {})}
            for m in messages]


def _opened(call: Any) -> Any:  # noqa: ANN401 - JSON
    """Return a call whose arguments are an object, as templates take them; clients send a text."""
    try:
        function = dict(call["function"])
        return {**call, "function": {**function, "arguments": json.loads(function["arguments"])}}
    except (KeyError, TypeError, ValueError, RecursionError):
        return call


def _flat(content: object) -> str | None:
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        raise BodyError(f"a message's content is {shown(content)}, expected a text or a list of "
                        "parts", "messages")
    texts = list[str]()
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        text = part.get("text", part.get("refusal")) if isinstance(part, Mapping) else None
        if kind not in ("text", "input_text", "refusal"):
            raise BodyError(f"a part of a message's content has the type {shown(kind)}, and this "
                            "model takes text only", "messages", "unsupported_content")
        if not isinstance(text, str):
            raise BodyError(f"a part of a message's content is {shown(part)}, expected a `text`",
                            "messages")
        texts.append(text)
    return "\n".join(texts)
