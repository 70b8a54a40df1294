"""Lines of a batch: what is refused and how it is said, and what an answer holds."""

import json

import pytest

import models
from models import SamplingParams
from models.serving.conversation import ConversationEncoder
from models.serving.openai.batch import BatchRunner
from models.serving.openai.batch_lines import MOST_BYTES
from models.serving.openai.body import CHAT_UNBUILT, COMPLETION_UNBUILT

NAME = "stories-llama3"
HI = [{"role": "user", "content": "Tell me a story"}]
URLS = {"prompt": "/v1/completions", "messages": "/v1/chat/completions"}


@pytest.fixture(scope="module")
def engine():
    with models.load_engine(NAME, max_context=128, max_num_seqs=8, max_queue=6) as engine:
        yield engine
        engine.check()
        assert engine.pool.free == engine.pool.blocks


def line(body, **other) -> bytes:
    url = URLS["messages" if "messages" in body else "prompt"]
    return json.dumps({"custom_id": "a", "method": "POST", "url": url, "body": body,
                       **other}).encode()


def run(engine, *lines, **defaults):
    runner = BatchRunner(engine, NAME, ConversationEncoder(engine.tokenizer), defaults)
    return list(runner.run(enumerate(lines, 1), lambda line: False))


def refused(engine, data: bytes):
    (result,) = run(engine, data)
    assert result["response"] is None and result["error"]["line"] == 1
    return result["error"]["param"], result["error"]["message"], result["error"]["code"]


def answered(engine, body, **defaults):
    (result,) = run(engine, line(body), **defaults)
    assert result["error"] is None, result
    assert result["response"]["status_code"] == 200
    return result["response"]["body"]


@pytest.mark.parametrize("data, said", [
    (b"{", "not JSON"), (b"7", "expected an object with custom_id"), (b"{}", "custom_id is None"),
    (b"\xff", "not JSON"), (b"[" * 100_000, "not JSON"), (b'{"custom_id": ""}', "not empty"),
    (b'{"custom_id": "a", "custom_id": "b"}', "not JSON"), (b" " * MOST_BYTES + b"{}", "bytes"),
    (line({"prompt": "A"}, method="GET"), "method is 'GET', expected 'POST'"),
    (line({"prompt": "A"}, url="/v1/embeddings"), "url is '/v1/embeddings', expected '/v1/co"),
    (line([1]), "body is [1], expected an object")])
def test_bad_lines(engine, data, said):
    assert said in refused(engine, data)[1]


@pytest.mark.parametrize("body, param, said", [
    ({"prompt": [[]]}, None, "the prompt is empty"), ({}, "prompt", "prompt is None"),
    ({"prompt": []}, "prompt", "0 prompts"), ({"prompt": [1.5]}, "prompt", "expected a text"),
    ({"prompt": [[-1]]}, None, "outside the vocabulary"), ({"prompt": [["a"]]}, None, "integers"),
    ({"prompt": "A", "model": "gpt-4o"}, "model", "--served-model-name"),
    ({"prompt": "A", "stream": True}, "stream", "a batch has no streams"),
    ({"prompt": "A", "temperature": "hot"}, None, "temperature is 'hot', expected 0"),
    ({"prompt": "A", "n": 1000}, "n", "at most 128"), ({"prompt": "A", "n": 0}, None, "at least 1"),
    ({"prompt": "A", "logit_bias": {"x": 1}}, "logit_bias", "token ids"),
    ({"prompt": "A", "stop": 3}, None, "stop is 3"), ({"prompt": "A", "echo": 1}, "echo", "true"),
    ({"prompt": "A", "logprobs": 21}, None, "logprobs is 21"),
    ({"prompt": "A", "max_tokens": 500}, "max_tokens", "the context holds 128"),
    ({"prompt": "A", "max_tokens": 0}, None, "max_tokens is 0"),
    ({"messages": []}, "messages", "expected a list of objects"),
    ({"messages": "hi"}, "messages", "expected a list of objects"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages",
     "takes text only"),
    ({"messages": [{"role": "user", "content": 3}]}, "messages", "content is 3"),
    ({"messages": HI, "tool_choice": "required"}, "tool_choice", "tools is empty"),
    ({"prompt": "A", "guided_json": {}}, "guided_json", "use structured_outputs"),
    ({"prompt": "A", "response_format": 3}, "response_format", "expected an object"),
    ({"prompt": "A", "structured_outputs": {"regex": "(a"}}, None, "unclosed group"),
    ({"prompt": "A", "response_format": {"type": "json_schema"}}, "response_format", "`schema`"),
    ({"messages": HI, "logprobs": 3}, "logprobs", "true or false"),
    ({"messages": HI, "top_logprobs": 3}, "top_logprobs", "goes with logprobs"),
    ({"messages": HI, "chat_template_kwargs": {"messages": []}}, "chat_template_kwargs", "fields"),
    ({"messages": HI, "tools": [{"type": "function"}]}, "tools", "takes no tools"),
    ({"messages": HI, "tools": [5]}, "tools", "expected a list of objects"),
    ({"messages": HI, "documents": ["a"]}, "documents", "expected a list of objects"),
    ({"prompt": ["A"] * 4, "n": 2}, "n", "asks for 8 texts, and at most 6 may wait"),
    ({"prompt": ["A"] * 7}, "prompt", "asks for 7 texts, and at most 6 may wait"),
    ({"messages": HI, "add_generation_prompt": True, "continue_final_message": True}, "messages",
     "one of them")])
def test_bad_bodies(engine, body, param, said):
    found, message, _ = refused(engine, line(body, url=URLS["messages" if "messages" in body
                                                            else "prompt"]))
    assert said in message and found == param
    assert not engine.has_unfinished_requests


@pytest.mark.parametrize("key, unbuilt", [("prompt", COMPLETION_UNBUILT),
                                          ("messages", CHAT_UNBUILT)])
def test_fields_that_are_not_built_are_refused_by_name(engine, key, unbuilt):
    base = {"prompt": "A", "max_tokens": 1} if key == "prompt" else {"messages": HI,
                                                                     "max_tokens": 1}
    for name, neutral in unbuilt.items():
        param, message, code = refused(engine, line({**base, name: {"x": 1}}))
        assert (param, code) == (name, "unsupported_parameter")
        assert message.startswith(f"{name} is ")
        for value in (None, *neutral):
            answered(engine, {**base, name: value})
    assert refused(engine, line({**base, "best_of": True}))[0] == "best_of", "True is not 1"
    answered(engine, {**base, "user": "u", "store": True, "metadata": {"a": "b"}})


def test_a_completion(engine):
    body = {"prompt": ["Once upon a time", [5, 6, 7]], "max_tokens": 5, "temperature": 0, "n": 2,
            "echo": True, "logprobs": 2, "return_token_ids": True, "model": NAME}
    found = answered(engine, body)
    outputs = engine.generate(["Once upon a time", [5, 6, 7]],
                              SamplingParams(temperature=0, max_tokens=5, n=2))
    assert found["object"] == "text_completion" and found["model"] == NAME
    assert [c["index"] for c in found["choices"]] == [0, 1, 2, 3]
    for i, choice in enumerate(found["choices"]):
        output = outputs[i // 2]
        assert choice["token_ids"] == output.outputs[i % 2].token_ids
        prompt = output.prompt or engine.tokenizer.decode([5, 6, 7])
        assert choice["text"] == prompt + output.outputs[i % 2].text
        tokens = choice["logprobs"]["token_logprobs"]
        assert tokens[0] is None and len(tokens) == len(output.prompt_token_ids) + 5
    total = sum(len(o.prompt_token_ids) for o in outputs)
    assert {**found["usage"], "prompt_tokens_details": None} == {
        "prompt_tokens": total, "completion_tokens": 20, "total_tokens": total + 20,
        "prompt_tokens_details": None}


def test_an_echo_alone(engine):
    found = answered(engine, {"prompt": "Once upon", "max_tokens": 0, "echo": True, "logprobs": 1})
    (choice,) = found["choices"]
    assert choice["text"] == "Once upon" and found["usage"]["completion_tokens"] == 0
    assert len(choice["logprobs"]["tokens"]) == found["usage"]["prompt_tokens"]


def test_a_chat(engine):
    body = {"messages": HI, "max_completion_tokens": 6, "temperature": 0, "logprobs": True,
            "top_logprobs": 2}
    found = answered(engine, body)
    text = engine.tokenizer.template.render(HI)
    ids = engine.tokenizer.encode(text, special=True)
    (output,) = engine.generate([ids], SamplingParams(temperature=0, max_tokens=6))
    (choice,) = found["choices"]
    assert choice["message"] == {"role": "assistant", "content": output.outputs[0].text,
                                 "refusal": None}
    assert found["usage"]["prompt_tokens"] == len(ids) and choice["finish_reason"] == "length"
    assert [len(c["top_logprobs"]) for c in choice["logprobs"]["content"]] == [2] * 6
    control = [{"role": "user", "content": "<|eot_id|>"}]  # no message can end its own turn
    counted = answered(engine, {**body, "messages": control})["usage"]["prompt_tokens"]
    assert counted > len(engine.tokenizer.encode(engine.tokenizer.template.render(control),
                                                 special=True))
    parts = [{"role": "user", "content": [{"type": "text", "text": HI[0]["content"]}]}]
    assert answered(engine, {**body, "messages": parts})["choices"] == found["choices"]
    (whole,) = engine.generate([ids], SamplingParams(temperature=0, max_tokens=None))
    counted = answered(engine, {"messages": HI, "temperature": 0})["usage"]["completion_tokens"]
    assert counted == len(whole.outputs[0].token_ids), "without max_tokens, to the end"


def test_defaults(engine):
    """Sample as the model's files say where a body says nothing; their stop texts always hold."""
    body = {"prompt": "Once upon a time", "max_tokens": 8}
    greedy = answered(engine, {**body, "temperature": 0})["choices"][0]["text"]
    assert answered(engine, body, temperature=0)["choices"][0]["text"] == greedy
    found = answered(engine, {**body, "stop": "zzz"}, temperature=0, stop=(greedy[3:6],))
    assert found["choices"][0]["text"] == greedy[:3]
    assert found["choices"][0]["stop_reason"] == greedy[3:6]


def test_a_full_queue(engine):
    """Wait for places in the queue; a request for more texts than it takes is refused."""
    lines = [line({"prompt": f"A {i}", "max_tokens": 3, "n": 1 + i % 4}, custom_id=str(i))
             for i in range(30)]
    results = run(engine, *lines, line({"prompt": "A", "n": 7}, custom_id="n"))
    assert len(results) == 31
    (failed,) = [r for r in results if r["error"]]
    assert failed["custom_id"] == "n" and "at most 6 may wait" in failed["error"]["message"]


def test_nothing_runs_on_after_the_end(engine):
    runner = BatchRunner(engine, NAME, None, {})
    found = runner.run(((i, line({"prompt": "A", "max_tokens": i}, custom_id=str(i)))
                        for i in range(1, 9)), lambda line: False)
    next(found)
    assert engine.has_unfinished_requests
    found.close()
    assert not engine.has_unfinished_requests


def test_a_form_of_the_text(engine):
    """A line that comes to a limit of its grammar is an error, and the others are answered."""
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"],
              "additionalProperties": False}
    body = {"messages": HI, "seed": 1, "max_tokens": 60, "response_format": {
        "type": "json_schema", "json_schema": {"name": "a", "schema": schema}}}
    (choice,) = answered(engine, body)["choices"]
    assert choice["finish_reason"] == "stop"
    assert type(json.loads(choice["message"]["content"])["ok"]) is bool
    (choice,) = answered(engine, {"prompt": "A", "structured_outputs": {"choice": ["yes"]}}
                         )["choices"]
    assert choice["text"] == "yes"


def test_a_grammar_that_cannot_be_followed(engine, monkeypatch):
    monkeypatch.setattr("models.serving.grammar.state.Grammar.check", lambda grammar, allowed:
                        setattr(grammar, "problem", ("refused", "it is too complex")))
    body = {"prompt": "A", "structured_outputs": {"regex": "a+"}}
    assert refused(engine, line(body)) == (None, "it is too complex", "grammar")
