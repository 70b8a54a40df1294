"""Finds chat templates, the Jinja texts that a model's files bring, and chooses one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from core.errors import TokenizerError
from core.reading import MIB, parse_json, read_file
from models.json_reader import ConfigReader
from models.tokenizers.added import special_texts
from models.tokenizers.chat.messages import marked, plain_messages, until_mark
from models.tokenizers.chat.rendering import render

DEFAULT, TOOLS = "default", "tool_use"
_MOST_BYTES = 16 * MIB
_FILE, _OLD_FILE, _FOLDER = ("chat_template.jinja", "chat_template.json",
                             "additional_chat_templates")


class Message(TypedDict):
    """`role` is system, user or assistant."""

    role: str
    content: str


class ChatTemplate:
    """Renders a conversation to the text that the model was trained on, special tokens included.

    sources    templates by name; the usual one is `default`
    variables  special tokens that a template may refer to, such as `bos_token`
    """

    def __init__(self, sources: Mapping[str, str], variables: Mapping[str, str]) -> None:
        self.sources, self.variables = dict(sources), dict(variables)

    def name_tokens(self, **tokens: str | None) -> None:
        """Add special tokens that the settings do not name."""
        for key, text in tokens.items():
            if text is not None:
                self.variables.setdefault(key, text)

    def choose(self, name: str | None = None, *, tools: bool = False) -> str:
        """Return the source of a template, by name, else for tools, else the default. Raises
        TokenizerError listing the names where none of them is meant."""
        names = ", ".join(sorted(self.sources))
        if name is not None and name not in self.sources:
            raise TokenizerError(f"there is no chat template {name!r}, the model has: {names}")
        chosen = name or (TOOLS if tools and TOOLS in self.sources else DEFAULT)
        if chosen not in self.sources:
            raise TokenizerError(f"the model has the chat templates {names}, and none of them is "
                                 "the default; name one: --chat-template NAME (template=NAME)")
        return self.sources[chosen]

    def only(self, name: str) -> ChatTemplate:
        """Return the template of that name alone. Raises TokenizerError as `choose`."""
        return ChatTemplate({DEFAULT: self.choose(name)}, self.variables)

    def render(self, messages: Sequence[Mapping[str, Any]], /, *,
               add_generation_prompt: bool | None = None,
               tools: Sequence[Mapping[str, Any]] | None = None,
               documents: Sequence[Mapping[str, Any]] | None = None,
               continue_final_message: bool = False,
               template: str | None = None, **more: Any) -> str:  # noqa: ANN401 - JSON
        """Render, with `more` as further variables.

        The text ends where the model's answer begins, or after the last message if
        `add_generation_prompt` is False, or inside it with `continue_final_message`. Raises
        TokenizerError with the template's own message if it rejects the conversation, and for a
        template that takes too long.
        """
        plain = plain_messages(messages)
        if continue_final_message and add_generation_prompt:
            raise TokenizerError("continue_final_message goes on with the last message, "
                                 "add_generation_prompt starts a new one; ask for one of them")
        values = {"messages": marked(plain) if continue_final_message else plain,
                  "add_generation_prompt": not continue_final_message
                  if add_generation_prompt is None else add_generation_prompt,
                  "tools": tools, "documents": documents, **self.variables, **more}
        text = render(self.choose(template, tools=tools is not None), values)
        return until_mark(text) if continue_final_message else text


def load_template(folder: Path, settings: ConfigReader) -> ChatTemplate | None:
    """Read chat_template.jinja and additional_chat_templates/NAME.jinja, else `chat_template` of
    tokenizer_config.json, else chat_template.json, which transformers reads for images only; None
    without any."""
    files = {DEFAULT: folder / _FILE,
             **{file.stem: file for file in sorted((folder / _FOLDER).glob("*.jinja"))}}
    sources = {name: read_template(file) for name, file in files.items() if file.exists()}
    sources = sources or named_sources(settings.data.get("chat_template"), settings.where)
    if not sources and (folder / _OLD_FILE).exists():
        try:
            sources = named_sources(parse_json(read_template(folder / _OLD_FILE))["chat_template"],
                                    str(folder / _OLD_FILE))
        except (ValueError, KeyError, TypeError):
            raise TokenizerError(f"{folder / _OLD_FILE} is not an object with `chat_template`; "
                                 "fetch it again") from None
    return ChatTemplate(sources, special_texts(settings)) if sources else None


def named_sources(value: object, where: str) -> dict[str, str]:
    """Return templates by name, given as a text, as an object, or as a list of objects with `name`
    and `template`. Raises TokenizerError."""
    if isinstance(value, list):
        value = dict((t.get("name"), t.get("template")) if isinstance(t, dict) else (None, t)
                     for t in value)
    found = {DEFAULT: value} if isinstance(value, str) else value or {}
    if not isinstance(found, dict) or not all(
            isinstance(k, str) and isinstance(v, str) for k, v in found.items()):
        raise TokenizerError(f"{where}: chat_template is {str(value)[:80]!r}, expected a text, or "
                             "a list of objects with `name` and `template`")
    return found


def read_template(path: Path) -> str:
    """Return the text of a template's file. Raises TokenizerError."""
    try:
        return read_file(path, _MOST_BYTES).decode("utf-8")
    except (OSError, ValueError) as error:  # ValueError: not UTF-8
        raise TokenizerError(f"{path} cannot be read: {error}") from None
