"""Forms of texts and forced calls of tools, with the client that OpenAI publishes."""

import json
from typing import Literal

import jsonschema_rs
import openai
import pydantic
import pytest

MODEL, PROMPT = "stories-llama2", "Once upon a time"
MESSAGES = [{"role": "user", "content": PROMPT}]
CHAT = {"model": MODEL, "messages": MESSAGES, "max_tokens": 120, "seed": 2}
CITY = {"type": "object", "properties": {"city": {"enum": ["Rome", "Paris"]},
                                         "days": {"type": "integer", "minimum": 1, "maximum": 9}},
        "required": ["city", "days"], "additionalProperties": False}
FLAG = {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"],
        "additionalProperties": False}
TOOLS = [{"type": "function", "function": {"name": name, "parameters": schema}}
         for name, schema in (("weather", CITY), ("light", FLAG))]
SCHEMAS = {"weather": CITY, "light": FLAG}
STRICT = [{"type": "function", "function": {**tool["function"], "strict": True}} for tool in TOOLS]


class Pet(pydantic.BaseModel):
    kind: Literal["cat", "dog"]
    age: int = pydantic.Field(ge=0, le=30)
    friends: list[Literal["Max", "Tim"]] = pydantic.Field(max_length=2)


def test_a_schema_in_a_chat_and_its_stream(client):
    asked = {"type": "json_schema", "json_schema": {"name": "c", "schema": CITY, "strict": True}}
    (choice,) = client.chat.completions.create(**CHAT, response_format=asked).choices
    assert choice.finish_reason == "stop"
    assert jsonschema_rs.is_valid(CITY, json.loads(choice.message.content))
    chunks = list(client.chat.completions.create(**CHAT, response_format=asked, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == choice.message.content
    assert chunks[-1].choices[0].finish_reason == "stop"
    (cut,) = client.chat.completions.create(
        **{**CHAT, "max_tokens": 5}, response_format=asked).choices
    assert cut.finish_reason == "length" and choice.message.content.startswith(cut.message.content)


def test_parse_with_pydantic(client):
    (choice,) = client.chat.completions.parse(**CHAT, response_format=Pet).choices
    assert isinstance(choice.message.parsed, Pet)


def test_a_completion_with_other_forms(client):
    def ask(**form):
        return client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=20, seed=1, n=2,
                                         extra_body={"structured_outputs": form}).choices
    assert {c.text for c in ask(choice=["yes", "no way"])} <= {"yes", "no way"}
    assert all(c.text.strip("ab") == "c" for c in ask(regex="[ab]{1,5}c"))
    assert all(c.text == "1+2" for c in ask(grammar='start: "1" "+" "2"'))


def calls_of(choice):
    return [(c.function.name, json.loads(c.function.arguments)) for c in choice.message.tool_calls]


def test_a_call_that_is_required(client):
    (choice,) = client.chat.completions.create(**CHAT, tools=TOOLS, tool_choice="required",
                                               parallel_tool_calls=False).choices
    ((name, arguments),) = calls_of(choice)
    assert choice.finish_reason == "tool_calls" and not choice.message.content
    assert jsonschema_rs.is_valid(SCHEMAS[name], arguments)
    deltas = [c.choices[0].delta for c in client.chat.completions.create(
        **CHAT, tools=TOOLS, tool_choice="required", parallel_tool_calls=False, stream=True)]
    (call,) = [call for d in deltas for call in d.tool_calls or ()]
    assert (call.function.name, json.loads(call.function.arguments)) == (name, arguments)


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_named_function(client, name):
    choice = {"type": "function", "function": {"name": name}}
    (found,) = client.chat.completions.create(**CHAT, tools=TOOLS, tool_choice=choice).choices
    ((called, arguments),) = calls_of(found)
    assert called == name and jsonschema_rs.is_valid(SCHEMAS[name], arguments)


def test_strict_functions_need_not_be_called(client):
    """The model knows no tools, and a text without a call is free."""
    settings = {**CHAT, "max_tokens": 12}
    (free,) = client.chat.completions.create(**settings, tools=STRICT).choices
    assert free.message.tool_calls is None and free.finish_reason == "length"
    plain = client.chat.completions.create(**settings, tools=TOOLS)
    assert free.message.content == plain.choices[0].message.content


HOSTILE = {
    "deep": {"json": '{"type":"array","items":' * 10_000 + "{}" + "}" * 10_000},
    "chain": {"grammar": "start: r0\n" + "".join(f"r{i}: r{i + 1}\n" for i in range(9_000))
              + 'r9000: "a"'},
    "enum": {"json": {"enum": [f"value {i}" for i in range(50_000)]}},
    "automaton": {"json": {"type": "integer", "multipleOf": 9_999_999}},
    "nobody": {"json": {"$ref": "#"}},
    "elsewhere": {"json": {"$ref": "http://127.0.0.1:9/schema"}},
    "braces": {"regex": "(" * 10_000 + "a" + ")" * 10_000}}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_forms_are_refused(client, server, name):
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=MODEL, prompt=PROMPT,
                                  extra_body={"structured_outputs": HOSTILE[name]})
    assert caught.value.param == "structured_outputs" and len(caught.value.message) < 600
    server.idle()


def test_a_client_that_leaves_while_its_grammar_is_tried(client, server):
    """The form takes two seconds until it is refused; others are served meanwhile, and after."""
    slow = {"json": {"type": "integer", "multipleOf": 9_999_998}}
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.3).completions.create(
            model=MODEL, prompt=PROMPT, extra_body={"structured_outputs": slow})
    assert client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=2).choices
    (choice,) = client.completions.create(
        model=MODEL, prompt=PROMPT, extra_body={"structured_outputs": {"choice": ["b"]}}).choices
    assert choice.text == "b"
    server.idle()
