"""Makes the grammar of calls of tools, in the form in which the model's chat template writes them.

An answer is held to it where a call is forced, where a function is `strict`, and where only one
call may be made. Forms are those that `models.serving.http.tools` reads back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from core.reading import shown
from models.serving.grammar.params import StructuredOutputsParams, embedded, quoted
from models.serving.openai.error import BodyError
from models.tokenizers.chat_template import ChatTemplate


class _Form(NamedTuple):
    """Says what stands around the arguments of a call, and between calls."""

    before: str
    key: str
    after: str
    between: str
    tagged: bool


_TAGGED = _Form("<tool_call>\n", "arguments", "\n</tool_call>", "\n", True)  # Qwen, Hermes
_BARE = _Form("", "parameters", "", "; ", False)  # Llama 3
_OTHERS = re.compile(r"<function=|<arg_key>|\[TOOL_CALLS\]|<\|tool_calls?_")

#: any text before a call, and any text; a call begins where its tag is complete
_FREE_TAGGED = 'before[lazy]: /(.|\\n)*/ "<tool_call>"\nTEXT: /(.|\\n)*/\n'
_FREE_BARE = 'TEXT: /(\\s*[^\\s{](.|\\n)*)?/\n'


def offered_tools(body: Mapping[str, Any]) -> list[Any] | None:
    """Return the tools that an answer may call, None without any."""
    return None if body.get("tool_choice") == "none" else body.get("tools") or None


def calls_form(body: Mapping[str, Any], template: ChatTemplate | None,
               ) -> StructuredOutputsParams | None:
    """Return the form of an answer that is held to calls of tools, None where it is free. Raises
    BodyError for a choice that is not built, and for tools that cannot be called by it."""
    forced, only = _choice(body.get("tool_choice"))
    tools = offered_tools(body)
    if forced and not tools:
        raise BodyError("tool_choice asks for a call, and tools is empty; send the tools",
                        "tool_choice")
    single = only is not None or body.get("parallel_tool_calls") is False
    if not tools or template is None:
        return None
    if not (forced or single or any(map(_strict, tools))):
        return None
    functions = [_function(tool) for tool in tools]
    if only is not None and only not in {f["name"] for f in functions}:
        raise BodyError(f"tool_choice names {shown(only)}, expected one of "
                        f"{', '.join(sorted(f['name'] for f in functions))}", "tool_choice")
    form = _form(template.choose(tools=True))
    chosen = [f for f in functions if only in (None, f["name"])]
    return StructuredOutputsParams(grammar=_grammar(form, chosen, forced, single), named="tools")


def _choice(choice: object) -> tuple[bool, str | None]:
    """Return whether a call is forced, and the name of the only function."""
    if choice in (None, "auto", "none", "required"):
        return choice == "required", None
    if isinstance(choice, Mapping) and choice.get("type") == "function":
        function = choice.get("function")
        if isinstance(function, Mapping) and isinstance(name := function.get("name"), str):
            return True, name
    raise BodyError(f"tool_choice is {shown(choice)}, and that is not built; expected 'auto', "
                    "'none', 'required', or {'type': 'function', 'function': {'name': NAME}}",
                    "tool_choice", "unsupported_parameter")


def _strict(tool: Any) -> bool:  # noqa: ANN401 - JSON
    function = tool.get("function") if isinstance(tool, Mapping) else None
    return isinstance(function, Mapping) and bool(function.get("strict"))


def _function(tool: Any) -> Mapping[str, Any]:  # noqa: ANN401 - JSON
    function = tool.get("function") if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise BodyError(f"tools has {shown(tool)}, expected objects of type 'function' whose "
                        "`function` has a name", "tools")
    if type(strict := function.get("strict")) not in (bool, type(None)):
        raise BodyError(f"strict of the function {shown(function['name'])} is {shown(strict)}, "
                        "expected true or false", "tools")
    return function


def _form(source: str) -> _Form:
    if not _OTHERS.search(source):
        if "<tool_call>" in source and re.search(r"arguments\\?[\"']", source):
            return _TAGGED
        if "<tool_call>" not in source and re.search(r"parameters\\?[\"']", source):
            return _BARE
    raise BodyError("the chat template writes calls in a form for which no grammar is built; leave "
                    "out strict and parallel_tool_calls, and send tool_choice: 'auto'", "tools",
                    "unsupported_parameter")


def _grammar(form: _Form, functions: Sequence[Mapping[str, Any]], forced: bool, single: bool,
             ) -> str:
    """Return the rules. What a form writes before a call is one text with its tag."""
    begin = form.before if forced or not form.tagged else form.before.removeprefix("<tool_call>")
    rules = [f"call: {' | '.join(f'call_{i}' for i in range(len(functions)))}"]
    for i, function in enumerate(functions):
        held = forced or function.get("strict")
        head = f'{begin}{{"name": {json.dumps(function["name"])}, "{form.key}": '
        rules.append(f"call_{i}: {quoted(head)} {embedded(_arguments(function, bool(held)))} "
                     f"{quoted('}' + form.after)}")
    more = "" if single else f" ({quoted(form.between)} call)*"
    if forced:
        start = f"start: call{more}\n"
    elif not form.tagged:
        start = f"start: call{more} | TEXT\n{_FREE_BARE}"
    else:
        start = "start: before call | TEXT\n" if single else "start: (before call)* TEXT\n"
        start += _FREE_TAGGED
    return start + "\n".join(rules)


def _arguments(function: Mapping[str, Any], held: bool) -> dict[str, Any]:
    """Return the schema of a function's arguments, any object where they need not hold to it."""
    schema = function.get("parameters")
    if schema is not None and not isinstance(schema, Mapping):
        raise BodyError(f"parameters of the function {shown(function['name'])} are "
                        f"{shown(schema)}, expected a JSON schema", "tools")
    found = {"type": "object", **(schema or {})} if held else {"type": "object"}
    if found["type"] != "object":
        raise BodyError(f"parameters of the function {shown(function['name'])} have the type "
                        f"{shown(found['type'])}, expected 'object'", "tools")
    return found
