"""Chat templates: the Jinja text that a model's files bring, run in Jinja's sandbox."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn, TypedDict

from core.errors import TokenizerError
from models.json_reader import ConfigReader


class Message(TypedDict):
    """`role` is system, user or assistant."""

    role: str
    content: str


class ChatTemplate:
    """Renders a conversation to the text that the model was trained on, special tokens included."""

    def __init__(self, source: str, variables: dict[str, str]) -> None:
        self.source, self.variables = source, variables

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> str:
        """Raises TokenizerError with the template's own message if it rejects the conversation."""
        from jinja2.ext import loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                                    extensions=[loopcontrols])
        environment.filters["tojson"] = _to_json
        environment.globals.update(
            raise_exception=_reject, strftime_now=lambda form: datetime.now().strftime(form))
        try:
            return environment.from_string(self.source).render(
                messages=list(messages), add_generation_prompt=add_generation_prompt,
                tools=None, documents=None, **self.variables)
        except Exception as error:  # a template is a program: it may fail in any way
            raise TokenizerError(f"the chat template failed: {error}") from None


def load_template(folder: Path, settings: ConfigReader) -> ChatTemplate | None:
    """From chat_template.jinja, or `chat_template` of tokenizer_config.json; None without one."""
    separate = folder / "chat_template.jinja"
    try:
        source: Any = (separate.read_text(encoding="utf-8") if separate.exists()
                       else settings.data.get("chat_template"))
    except (OSError, ValueError) as error:  # ValueError: not UTF-8
        raise TokenizerError(f"{separate} cannot be read: {error}") from None
    if isinstance(source, list):  # several, by name
        named = {t.get("name"): t.get("template") for t in source if isinstance(t, dict)}
        source = named.get("default")
    if not isinstance(source, str):
        return None
    variables = {}
    for key in ("bos_token", "eos_token", "unk_token", "pad_token"):
        value = settings.data.get(key)
        value = value.get("content") if isinstance(value, dict) else value
        if isinstance(value, str):
            variables[key] = value
    return ChatTemplate(source, variables)


def _to_json(value: object, indent: int | None = None) -> str:
    """As transformers has it: no HTML escapes, which Jinja's own filter would write."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _reject(message: str) -> NoReturn:
    from jinja2 import TemplateError
    raise TemplateError(message)
