"""Grammars of tool calls: which answers they let through, in the forms that are read back."""

import json
from types import SimpleNamespace

import pytest
from json_schemas import closed

from models.serving.grammar.compiler import GrammarCompiler
from models.serving.http.tools import ToolText
from models.serving.openai.error import BodyError
from models.serving.openai.tool_calls import calls_form

QWEN = r'... return a json object within <tool_call>: {\"name\": <n>, \"arguments\": <a>} ...'
LLAMA = '... in the format {"name": function name, "parameters": dictionary of arguments} ...'
ADD, LOOK = closed(a={"type": "integer"}), {"type": "object", "properties": {"at": {}}}
FORCED, AUTO = {"tool_choice": "required"}, {"tool_choice": "auto"}
ONE = {"parallel_tool_calls": False}
NAMED = {"tool_choice": {"type": "function", "function": {"name": "add"}}}


def tools(strict=None):
    return [{"type": "function", "function": {"name": name, "parameters": schema, "strict": strict}}
            for name, schema in (("add", ADD), ("look", LOOK))]


def call(source, name, arguments):
    if source == LLAMA:
        return f'{{"name": "{name}", "parameters": {arguments}}}'
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


@pytest.fixture(scope="module")
def follow(story):
    """Return follow(form, text): how much of a text a grammar lets through, and whether the text
    may end there."""
    tokenizer = story.tokenizer
    compiler = GrammarCompiler(tokenizer, story.config.vocab_size, frozenset({tokenizer.eos_id}))

    def found(form, text):
        grammar = compiler.start(form)
        ids = [tokenizer.processor.piece_to_id(f"<0x{b:02X}>") for b in text.encode()]
        for i, token in enumerate(ids):
            mask = grammar.masks.fill([(grammar.matcher, 0)], 1)[0]
            if not mask[token // 32] >> token % 32 & 1:
                return text[:i], False
            grammar.accept(token)
        return text, grammar.matcher.is_accepting()
    return found


def form_of(source, strict=None, **body):
    return calls_form({"tools": tools(strict), **body},
                      SimpleNamespace(choose=lambda tools: source))


@pytest.mark.parametrize("source", [QWEN, LLAMA], ids=["qwen", "llama"])
def test_a_forced_call(follow, source):
    add, look = call(source, "add", '{"a": 12}'), call(source, "look", '{"at": ["x", {}]}')
    between = "\n" if source == QWEN else "; "
    for body in (FORCED, {**FORCED, **ONE}, NAMED):
        form = form_of(source, **body)
        assert follow(form, add) == (add, True)
        assert (follow(form, look)[0] == look) == (body is not NAMED)
        assert (follow(form, add + between + add)[1]) == (body is FORCED)
        assert follow(form, "Hello") == ("", False)
        assert not follow(form, call(source, "burn", "{}"))[1]
        assert not follow(form, call(source, "add", '{"a": "no"}'))[1]
    found = ToolText(frozenset({"add", "look"}), source)
    found.push(add + between + look)
    assert [c["function"]["name"] for c in found.finish()[1]] == ["add", "look"]


@pytest.mark.parametrize("source", [QWEN, LLAMA], ids=["qwen", "llama"])
def test_a_strict_function_may_be_called(follow, source):
    good, bad = call(source, "add", '{"a": 12}'), call(source, "add", '{"a": true}')
    form = form_of(source, strict=True, **AUTO)
    for text in ("", "Hello <b> 1 < 2", "\n  Ça va?\n", good):
        assert follow(form, text) == (text, True), text
    assert not follow(form, bad)[1] and bad.startswith(follow(form, bad)[0])
    if source == QWEN:
        assert follow(form, f"I look. {good}\n{good} done")[1]
        assert not follow(form, f"I look. {good}\n{bad}")[1]
    assert not follow(form_of(source, strict=True, **ONE), good + "\n" + good)[1]


@pytest.mark.parametrize("source", [QWEN, LLAMA], ids=["qwen", "llama"])
def test_one_call_without_strict(follow, source):
    form, any_object = form_of(source, **ONE), call(source, "add", '{"b": "any"}')
    assert follow(form, any_object) == (any_object, True)
    assert follow(form, "Hello") == ("Hello", True)
    assert form_of(source, **AUTO) is None, "a free answer needs no grammar"
    assert calls_form({"tools": tools(True), "tool_choice": "none"}, None) is None


@pytest.mark.parametrize("source", [
    "{{ tools }}", "<tool_call><function=name>", "<tool_call>{name}<arg_key>", "[TOOL_CALLS]",
    "<|tool_call_begin|> \"arguments\""])
def test_other_forms_are_refused(source):
    for how in (FORCED, ONE, NAMED):
        with pytest.raises(BodyError, match="a form for which no grammar is built") as caught:
            form_of(source, **how)
        assert caught.value.param == "tools"
    with pytest.raises(BodyError, match="no grammar is built"):
        form_of(source, strict=True)


@pytest.mark.parametrize(("function", "said"), [
    ({"name": 3}, "has a name"), ({"name": "a", "strict": "yes"}, "strict of the function 'a'"),
    ({"name": "a", "parameters": 5}, "expected a JSON schema"),
    ({"name": "a", "parameters": {"type": "array"}}, "the type 'array', expected 'object'")])
def test_functions_that_cannot_be_called(function, said):
    body = {"tools": [{"type": "function", "function": function}], **FORCED}
    with pytest.raises(BodyError, match=said):
        calls_form(body, SimpleNamespace(choose=lambda tools: QWEN))


def test_odd_names_and_empty_parameters(follow):
    name = 'a "b"\\ü'
    body = {"tools": [{"type": "function", "function": {"name": name}}], **FORCED}
    form = calls_form(body, SimpleNamespace(choose=lambda tools: QWEN))
    text = f'<tool_call>\n{{"name": {json.dumps(name)}, "arguments": {{}}}}\n</tool_call>'
    assert follow(form, text) == (text, True)
