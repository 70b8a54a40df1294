"""Compare our rendering of published chat templates with that of transformers, byte by byte.

    python tools/published/templates.py FOLDER

FOLDER holds *.jinja files, and folders with a tokenizer_config.json; fetch.py fetches some. Prints
a table in Markdown: a template, the conversations, how many of them give equal text or are rejected
by both with the same message, and those that differ. Exit code 1 where any does.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from core.errors import TokenizerError
from models.tokenizers.chat.render_process import TOO_DEEP
from models.tokenizers.chat_template import ChatTemplate, named_sources

TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
_USER = {"role": "user", "content": "What is 2 < 3 & \"é\" 你好?\n"}
_ANSWER = {"role": "assistant", "content": "  Yes: `a<b`. 'So'.\n"}
_SYSTEM = {"role": "system", "content": "Be brief."}
_TOOL = {"type": "function", "function": {
    "name": "get_weather", "description": "Weather of a city, in °C",
    "parameters": {"type": "object", "required": ["city"], "properties": {
        "city": {"type": "string", "description": "A city", "enum": ["Zürich", "A&B"]},
        "days": {"type": "integer", "description": "How many"},
        "where": {"type": "object", "properties": {"x": {"type": "number"}}},
        "list": {"type": "array", "items": {"type": "string"}}}}}}
_ODD_TOOL = {"type": "function", "function": {
    "name": "f", "description": "", "parameters": {"type": "object", "properties": {
        "days": {"type": ["integer", "null"]}, "any": {}}}}}
_CALL = {"role": "assistant", "content": "", "tool_calls": [
    {"id": "abcdefghi", "type": "function", "function": {
        "name": "get_weather", "arguments": {"city": "Zürich", "days": 2}}}]}
_RESULT = {"role": "tool", "name": "get_weather", "tool_call_id": "abcdefghi",
           "content": "{\"t\": 21.5}"}
_DOCUMENTS = [{"title": "A <b>", "text": "One é"}, {"title": "B", "text": "Two"}]
_THINKING = {"role": "assistant", "content": "42", "reasoning_content": "Six by seven.\nSo"}
_PARTS = {"role": "user", "content": [{"type": "text", "text": "Look: "},
                                      {"type": "text", "text": "here"}]}
#: a name -> messages and further arguments
CASES: Mapping[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "one message": ([_USER], {}),
    "system": ([_SYSTEM, _USER], {}),
    "turns": ([_SYSTEM, _USER, _ANSWER, _USER], {}),
    "ends with an answer": ([_USER, _ANSWER], {"add_generation_prompt": False}),
    "answer continued": ([_USER, {**_ANSWER, "content": "So it"}],
                         {"continue_final_message": True, "add_generation_prompt": False}),
    "tools": ([_SYSTEM, _USER], {"tools": [_TOOL, _TOOL]}),
    "tools with odd types": ([_USER], {"tools": [_ODD_TOOL]}),
    "tool called": ([_USER, _CALL, _RESULT], {"tools": [_TOOL]}),
    "arguments as text": ([_USER, {**_CALL, "content": None, "tool_calls": [
        {"type": "function", "id": "abcdefghi", "function": {
            "name": "get_weather", "arguments": "{\"city\": \"B\"}"}}]}, _RESULT, _ANSWER, _USER],
        {"tools": [_TOOL]}),
    "documents": ([_USER], {"documents": _DOCUMENTS}),
    "reasoning": ([_USER, _THINKING, _USER], {}),
    "reasoning named thinking": ([_USER, {"role": "assistant", "content": "42", "thinking": "Six"},
                                  _USER, _CALL, _RESULT], {}),
    "thinking off": ([_USER], {"enable_thinking": False, "thinking": False}),
    "parts": ([_PARTS, _ANSWER, _PARTS], {}),
    "two users": ([_USER, _USER], {}),
    "an empty message": ([{"role": "user", "content": ""}], {}),
    "another role": ([{"role": "developer", "content": "x"}, _USER, {"role": "x", "content": "y"}],
                     {}),
}


def sources(root: Path) -> Iterator[tuple[str, str]]:
    """Yield a name and a text for each template below a folder."""
    for file in sorted(root.rglob("*.jinja")):
        yield f"{file.parent.name}/{file.stem}", file.read_text(encoding="utf-8")
    for file in sorted(root.rglob("tokenizer_config.json")):
        data = json.loads(file.read_text(encoding="utf-8"))
        for name, text in named_sources(data.get("chat_template"), str(file)).items():
            folder = next(p for p in file.parents if p.name not in ("models", "package"))
            yield f"{folder.name}" + (f" ({name})" if name != "default" else ""), text


class Judge:
    """Renders with transformers."""

    def __init__(self) -> None:
        from tokenizers import Tokenizer, models
        from transformers import PreTrainedTokenizerFast
        tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(TOKENS.values())},
                                         merges=[]))
        self._tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **TOKENS)

    def render(self, source: str, messages: list[dict[str, Any]],
               **more: Any) -> str:  # noqa: ANN401 - JSON
        """Return the text. Raises what transformers and templates raise."""
        arguments = {"add_generation_prompt": True, **more}
        return str(self._tokenizer.apply_chat_template(messages, chat_template=source,
                                                       tokenize=False, **arguments))


def both(judge: Judge, source: str, case: str) -> tuple[str, ...]:
    """Return the judge's text or complaint, and ours."""
    messages, more = CASES[case]
    try:
        expected = judge.render(source, messages, **more)
    except RecursionError:
        expected = f"rejected: {TOO_DEEP}"
    except Exception as error:
        expected = f"rejected: {error}"
    try:
        found = ChatTemplate({"default": source}, TOKENS).render(messages, **more)
    except TokenizerError as error:
        found = f"rejected: {str(error).removeprefix('the chat template failed: ')}"
    if more.get("continue_final_message") and all(
            text.startswith("rejected: ") and "continue_final" in text for text in (
                expected, found)):
        return "", ""  # each says in its own words that the template does not show the message
    return tuple(text[:900] if text.startswith("rejected: ") else text
                 for text in (expected, found))


def main(root: Path) -> int:
    """Print the table."""
    judge, wrong, total = Judge(), 0, 0
    print("| template | conversations | equal | different |\n|---|---|---|---|")
    for name, source in sources(root):
        differs = [case for case in CASES if len({*both(judge, source, case)}) > 1]
        wrong, total = wrong + len(differs), total + len(CASES)
        print(f"| {name} | {len(CASES)} | {len(CASES) - len(differs)} | {', '.join(differs)} |")
    print(f"\n{total - wrong} of {total} are equal.")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
