"""Tests how calls of tools are found in the text of an answer, at once and piece by piece."""

import json

import pytest

from models.serving.http.service import flat_messages
from models.serving.http.tools import ToolText, tool_names

NAMES = frozenset({"look", "add"})
QWEN, LLAMA = "... <tool_call> ...", "... {{ tools }} ..."


def run(source: str, text: str, size: int) -> tuple[str, list]:
    """Push a text in pieces; returns the text shown and the calls."""
    tools = ToolText(NAMES, source)
    shown = "".join(tools.push(text[i:i + size]) for i in range(0, len(text), size))
    rest, calls = tools.finish()
    return shown + rest, [(c["function"]["name"], json.loads(c["function"]["arguments"]))
                          for c in calls]


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(("source", "text", "shown", "calls"), [
    (QWEN, 'Let me see.\n<tool_call>\n{"name": "look", "arguments": {"at": "ä"}}\n</tool_call>',
     "Let me see.\n", [("look", {"at": "ä"})]),
    (QWEN, '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>\n'
     '<tool_call>{"name": "look", "arguments": {}}', "", [("add", {"a": 1}), ("look", {})]),
    (QWEN, "a <tool_calls are none", "a <tool_calls are none", []),
    (QWEN, '<tool_call>{"name": "look"', '<tool_call>{"name": "look"', []),
    (QWEN, '<tool_call>{"name": "burn", "arguments": {}}</tool_call>',
     '<tool_call>{"name": "burn", "arguments": {}}</tool_call>', []),
    (LLAMA, '{"name": "look", "parameters": {"at": [1]}}', "", [("look", {"at": [1]})]),
    (LLAMA, ' {"name": "look", "parameters": {}}; {"name": "add", "parameters": {"a": 2}}', "",
     [("look", {}), ("add", {"a": 2})]),
    (LLAMA, '{"name": "look", "parameters": {}} and more',
     '{"name": "look", "parameters": {}} and more', []),
    (QWEN, '<tool_call>{"name": "add", "arguments": {"a": NaN}}</tool_call>',
     '<tool_call>{"name": "add", "arguments": {"a": NaN}}</tool_call>', []),
    (LLAMA, '{"name": "add", "parameters": {"a": 1e999}}',
     '{"name": "add", "parameters": {"a": 1e999}}', []),
    (LLAMA, "There is no call.", "There is no call.", []),
    (LLAMA, '{"a": 1}', '{"a": 1}', []),
    (LLAMA, "", "", [])], ids=lambda value: ascii(value)[:30])
def test_calls(source, text, shown, calls, size):
    assert run(source, text, size) == (shown, calls)


def test_text_without_a_call_is_shown_as_it_comes():
    tools = ToolText(NAMES, QWEN)
    assert [tools.push(p) for p in ("a ", "<tool", "box", " b")] == ["a ", "", "<toolbox", " b"]


def test_names_of_tools():
    assert tool_names([{"type": "function", "function": {"name": "a"}}, {"name": "b"},
                       {"function": 3}]) == {"a", "b"}


def test_arguments_are_objects_for_a_template():
    call = {"id": "1", "type": "function", "function": {"name": "a", "arguments": '{"x": 1}'}}
    odd = {"function": {"name": "a", "arguments": "no JSON"}}
    (message,) = flat_messages([{"role": "assistant", "content": None, "tool_calls": [call, odd]}])
    assert message["tool_calls"][0]["function"]["arguments"] == {"x": 1}
    assert message["tool_calls"][1] == odd
