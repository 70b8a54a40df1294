"""Tests how the parts of a stream are written: as JSON writes them, and the last first."""

import asyncio
import json
from types import SimpleNamespace

import numpy as np
import pytest
from scripted_engine import ScriptedEngine

from core.tensor.dtype import f32
from core.tensor.host import HostAllocator
from core.tensor.tensor import Tensor
from models.serving.http.app import create_app
from models.serving.http.errors import json_bytes
from models.serving.http.respond import Frame
from models.serving.http.service import Service
from models.serving.link import warm
from models.serving.link.worker import _Worker
from models.serving.request import CompletionOutput, RequestOutput


@pytest.mark.parametrize("text", ["", " a", '"text":""', 'a"\\\n\0', "ä€😀", "\ud800"], ids=ascii)
@pytest.mark.parametrize("name", ["text", "content"])
def test_a_frame_writes_what_json_does(name, text):
    def chunk(value: str) -> dict:
        return {"model": '"text":""', "choices": [{"index": 0, name: value, "logprobs": None}]}
    assert Frame(chunk(""), name).event(text) == b"data: " + json_bytes(chunk(text)) + b"\n\n"


def test_last_tokens_are_sent_before_any_stream_is_closed():
    sent = []

    async def user(app, name):
        body = json.dumps({"prompt": "hi", "stream": True}).encode()
        given = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive():
            return given.pop() if given else await asyncio.Event().wait()

        async def send(message):
            sent.append((name, message))
        await app({"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1",
                   "method": "POST", "path": "/v1/completions", "raw_path": b"/v1/completions",
                   "query_string": b"", "root_path": "", "scheme": "http",
                   "headers": [(b"content-type", b"application/json")]}, receive, send)

    async def run():
        app = create_app(Service(ScriptedEngine("ab"), "m"))
        await asyncio.gather(user(app, 1), user(app, 2))
    asyncio.run(run())
    last = [name for name, message in sent if b"[DONE]" in message.get("body", b"")]
    assert sorted(last) == [1, 2] and [name for name, message in sent[-2:]] == last
    assert all(message == {"type": "http.response.body"} for _, message in sent[-2:])


def test_tokens_in_the_middle_of_texts_are_one_message():
    class Pipe:
        def send(self, messages):
            self.messages = messages

    worker = _Worker.__new__(_Worker)
    worker._sent, worker._out, worker._sender = {}, [], Pipe()
    texts = {name: CompletionOutput(0) for name in "abcd"}
    texts["d"].logprobs = []
    outputs = [RequestOutput(name, None, [1], [one]) for name, one in texts.items()]
    for step in range(1, 4):
        for one in texts.values():
            one.token_ids.append(step)
        texts["d"].logprobs = [{}] * step
        texts["c"].finish_reason = "length" if step == 2 else None
        changed = outputs if step < 3 else [o for o in outputs if o.request_id != "c"]
        worker._sent = worker._sent or dict.fromkeys(texts, (0, 0))
        worker._tell(changed)
        worker._flush()
        whole = [m[1].sequence_id for m in worker._sender.messages if m[0] == "tokens"]
        short = [m[1:] for m in worker._sender.messages if m[0] == "next"]
        assert whole == [list("abcd"), ["c", "d"], ["d"]][step - 1]
        assert short == ([] if step == 1 else [(["a", "b"], [step, step])])
        for kind, *rest in worker._sender.messages:
            assert kind == "next" or rest[0].token_ids == [step]


def test_pages_of_keys_and_of_values_are_written_and_no_more():
    cache = Tensor.zeros((2, 8, 16, 2, 64), f32, HostAllocator())
    data = cache.numpy().reshape(2, -1).view(np.uint8)
    data[:] = 1
    steps = SimpleNamespace(cache=[cache, SimpleNamespace(device="cuda:0")])
    warm._touch(SimpleNamespace(executor=SimpleNamespace(steps=steps)))
    expected = np.ones_like(data)
    expected[:, ::warm.PAGE] = 0
    assert np.array_equal(data, expected)
