"""Tests answers whose text is known: calls of tools, and failures in the middle of a stream."""

import asyncio
import json

import httpx
import pytest
from scripted_engine import ScriptedEngine, conversations

from core.errors import NoKernelError
from models.serving.http.app import create_app
from models.serving.http.service import Service
from models.serving.link.process import EngineError

CALL = 'I look.<tool_call>{"name": "look", "arguments": {"at": "sky"}}</tool_call>'
TOOLS = [{"type": "function", "function": {"name": "look"}}]
BODY = {"messages": [{"role": "user", "content": "hi"}], "tools": TOOLS}


def ask(engine, path: str, body: dict) -> httpx.Response:
    service = Service(engine, "m", conversations=conversations("tools: <tool_call>"))

    async def send():
        transport = httpx.ASGITransport(create_app(service), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            return await http.post(path, json=body)
    return asyncio.run(send())


def chunks(answer: httpx.Response) -> list[dict]:
    lines = [line for line in answer.text.split("\n") if line.startswith("data: ")]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def test_a_call_in_a_whole_answer():
    (choice,) = ask(ScriptedEngine(CALL), "/v1/chat/completions", BODY).json()["choices"]
    assert choice["finish_reason"] == "tool_calls" and choice["message"]["content"] == "I look."
    (call,) = choice["message"]["tool_calls"]
    assert call["type"] == "function" and call["id"].startswith("call_") and "index" not in call
    assert call["function"] == {"name": "look", "arguments": '{"at": "sky"}'}


def test_a_call_in_a_stream():
    parts = [c["choices"][0] for c in chunks(ask(
        ScriptedEngine(CALL), "/v1/chat/completions", {**BODY, "stream": True}))]
    assert "".join(p["delta"].get("content", "") for p in parts) == "I look."
    (call,) = [call for p in parts for call in p["delta"].get("tool_calls", ())]
    assert call["index"] == 0 and call["function"]["name"] == "look"
    assert [p["finish_reason"] for p in parts if p["finish_reason"]] == ["tool_calls"]


@pytest.mark.parametrize("more", [{"tool_choice": "none"}, {"tools": []}])
def test_without_tools_the_text_is_as_it_is(more):
    (choice,) = ask(ScriptedEngine(CALL), "/v1/chat/completions", {**BODY, **more}
                    ).json()["choices"]
    assert choice["message"] == {"role": "assistant", "content": CALL, "refusal": None}
    assert choice["finish_reason"] == "stop"


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
@pytest.mark.parametrize(("error", "status"), [
    (NoKernelError("no kernel takes it"), 500), (EngineError("it has ended"), 503),
    (ZeroDivisionError("secret"), 500)], ids=["kernel", "engine", "bug"])
def test_a_failure_in_the_middle(path, error, status, capsys):
    body = {"prompt": "hi"} if path == "/v1/completions" else BODY
    engine = ScriptedEngine("some", error)
    whole = ask(engine, path, body)
    assert whole.status_code == status and len(engine.closed) >= 1
    streamed = ask(ScriptedEngine("some", error), path, {**body, "stream": True})
    assert streamed.status_code == 200 and "[DONE]" not in streamed.text
    *_, event, data = [line for line in streamed.text.split("\n") if line]
    assert event == "event: error"
    message = json.loads(data.removeprefix("data: "))["error"]["message"]
    assert message == whole.json()["error"]["message"]
    assert (str(error) in message) == (not isinstance(error, ZeroDivisionError))
    if isinstance(error, ZeroDivisionError):
        assert "secret" in capsys.readouterr().err, "what is a fault of ours is in the log"


def test_characters_that_json_and_utf8_lack():
    answer = ask(ScriptedEngine("ä\ud800€"), "/v1/completions", {"prompt": "hi"})
    assert answer.json()["choices"][0]["text"] == "ä\ud800€"


def test_usage_with_every_chunk():
    parts = chunks(ask(ScriptedEngine("abc"), "/v1/completions", {
        "prompt": "hi", "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True}}))
    counts = [p["usage"]["completion_tokens"] for p in parts]
    assert counts == sorted(counts) and counts[-1] == 4 and parts[-1]["choices"] == []
