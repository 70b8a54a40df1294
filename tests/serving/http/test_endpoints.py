"""Tests status codes, error objects and the endpoints beside OpenAI's."""

import re
import subprocess
import sys

import httpx
import pytest

PROMPT = "Once upon a time"
USER = [{"role": "user", "content": "hi"}]
LOOK = {"type": "function", "function": {"name": "look", "parameters": {}}}
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"


@pytest.mark.parametrize(("path", "body", "status", "param"), [
    (COMPLETIONS, {"prompt": "a", "model": "x"}, 404, "model"),
    (COMPLETIONS, {"prompt": "a", "temperature": -1}, 400, "temperature"),
    (COMPLETIONS, {"prompt": "a", "max_tokens": 0}, 400, "max_tokens"),
    (COMPLETIONS, {"prompt": "a", "max_tokens": -1}, 400, "max_tokens"),
    (COMPLETIONS, {"prompt": "a " * 2000}, 400, "prompt"),
    (COMPLETIONS, {"prompt": "a", "max_tokens": 100_000}, 400, "max_tokens"),
    (COMPLETIONS, {"prompt": ""}, 200, None),
    (COMPLETIONS, {"prompt": []}, 400, "prompt"),
    (COMPLETIONS, {}, 400, "prompt"),
    (COMPLETIONS, {"prompt": [99_999_999]}, 400, "prompt"),
    (COMPLETIONS, {"prompt": [-1]}, 400, "prompt"),
    (COMPLETIONS, {"prompt": [2**40]}, 400, "prompt"),
    (COMPLETIONS, {"prompt": "\ud800"}, 400, "prompt"),
    (COMPLETIONS, {"prompt": "a", "model": "\udfff"}, 404, "model"),
    (COMPLETIONS, {"prompt": "a", "n": 2, "seed": 1}, 200, None),
    (COMPLETIONS, {"prompt": "a", "n": 129}, 400, "n"),
    (COMPLETIONS, {"prompt": "a", "n": 65}, 400, "n"),  # 64 may wait: to come again is no use
    (COMPLETIONS, {"prompt": ["a"] * 65}, 400, "prompt"),
    (COMPLETIONS, {"prompt": "a", "best_of": True}, 400, "best_of"),
    (COMPLETIONS, {"prompt": "a", "seed": 2**70}, 200, None),
    (COMPLETIONS, {"prompt": "a", "seed": -2**70}, 200, None),
    (COMPLETIONS, {"prompt": "a", "logprobs": 100}, 400, "logprobs"),
    (COMPLETIONS, {"prompt": "a", "nonsense": 2}, 200, None),
    (COMPLETIONS, {"prompt": "a", "logit_bias": {"10": 100}}, 200, None),
    (COMPLETIONS, {"prompt": "a", "logit_bias": {"dog": 1}}, 400, "logit_bias"),
    (COMPLETIONS, {"prompt": "a", "logit_bias": {"99999": 1}}, 400, "logit_bias"),
    (COMPLETIONS, {"prompt": "a", "stream_options": {"include_usage": True}}, 400,
     "stream_options"),
    (COMPLETIONS, {"prompt": "a", "suffix": "b"}, 400, "suffix"),
    (COMPLETIONS, {"prompt": "a", "suffix": None, "best_of": 1}, 200, None),
    (COMPLETIONS, {"prompt": "a", "best_of": 3}, 400, "best_of"),
    (COMPLETIONS, {"prompt": "a", "guided_regex": "a+"}, 400, "guided_regex"),
    (COMPLETIONS, {"prompt": "a", "structured_outputs": {"choice": ["b"]}}, 200, None),
    (COMPLETIONS, {"prompt": "a", "structured_outputs": {"regex": "(b"}}, 400,
     "structured_outputs"),
    (COMPLETIONS, {"prompt": "a", "structured_outputs": {"regex": "b", "structural_tag": "c"}}, 400,
     "structured_outputs"),
    (COMPLETIONS, {"prompt": "a", "structured_outputs": {"regex": "b"}, "min_tokens": 2}, 400,
     "min_tokens"),
    (COMPLETIONS, {"prompt": "a", "response_format": {"type": "json_object"}}, 200, None),
    (COMPLETIONS, {"prompt": "a", "response_format": {"type": "xml"}}, 400, "response_format"),
    (COMPLETIONS, {"prompt": "a", "response_format": {"type": "json_object"},
                   "structured_outputs": {"choice": ["b"]}}, 400, "response_format"),
    (COMPLETIONS, {"prompt": "a", "response_format": "text"}, 400, "response_format"),
    (COMPLETIONS, {"prompt": "a", "echo": True, "logprobs": 1, "stream": True}, 400, "echo"),
    (COMPLETIONS, {"prompt": "a", "stop": "b" * 500_000}, 200, None),
    (COMPLETIONS, {"prompt": "a", "stop": ["b"] * 65}, 400, "stop"),
    (COMPLETIONS, {"prompt": "a", "stop": ""}, 400, "stop"),
    (COMPLETIONS, {"prompt": "a", "stop": "\ud800"}, 200, None),
    (COMPLETIONS, {"prompt": "a", "cache_salt": "\ud800"}, 400, "cache_salt"),
    (CHAT, {"messages": USER, "add_special_tokens": True}, 400, "add_special_tokens"),
    (CHAT, {"messages": [{"role": "user", "content": "\ud800"}]}, 400, "messages"),
    (CHAT, {"messages": USER, "chat_template_kwargs": {"messages": []}}, 400,
     "chat_template_kwargs"),
    (CHAT, {"messages": USER, "n": 65}, 400, "n"),
    (CHAT, {"messages": USER, "chat_template_kwargs": {"self": 1, "source": 2, "": 3}}, 200, None),
    (CHAT, {"messages": []}, 400, "messages"),
    (CHAT, {}, 400, "messages"),
    (CHAT, {"messages": USER}, 200, None),
    (CHAT, {"messages": USER, "response_format": {"type": "text"}, "user": "me"}, 200, None),
    (CHAT, {"messages": USER, "response_format": {"type": "json_schema"}}, 400, "response_format"),
    (CHAT, {"messages": USER, "response_format": {"type": "json_schema", "json_schema": {
        "name": "a", "schema": {"type": "whole"}}}}, 400, "response_format"),
    (CHAT, {"messages": USER, "response_format": {"type": "json_object"}, "tools": [LOOK]}, 400,
     "response_format"),
    (CHAT, {"messages": USER, "response_format": {"type": "json_object"}, "tools": [LOOK],
            "tool_choice": "none"}, 200, None),
    (CHAT, {"messages": USER, "tools": [LOOK], "tool_choice": {"type": "allowed_tools"}}, 400,
     "tool_choice"),
    (CHAT, {"messages": USER, "tools": [LOOK], "tool_choice": {
        "type": "function", "function": {"name": "other"}}}, 400, "tool_choice"),
    (CHAT, {"messages": USER, "tools": [{"type": "custom"}], "tool_choice": "required"}, 400,
     "tools"),
    (CHAT, {"messages": USER, "tool_choice": "required", "tools": [
        {"type": "function", "function": {"name": "a", "parameters": {"uniqueItems": True}}}]}, 400,
     "tools"),
    (CHAT, {"messages": USER, "top_logprobs": 2}, 400, "top_logprobs"),
    (CHAT, {"messages": USER, "logprobs": True, "top_logprobs": 21}, 400, "top_logprobs"),
    (CHAT, {"messages": USER, "tool_choice": "required"}, 400, "tool_choice"),
    (CHAT, {"messages": USER, "documents": [{"text": "a"}]}, 400, "documents"),
    (CHAT, {"messages": USER, "modalities": ["audio"]}, 400, "modalities"),
    (CHAT, {"messages": USER, "max_completion_tokens": 9999}, 400, "max_completion_tokens"),
    (CHAT, {"messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "data:"}}]}]}, 400, "messages"),
    ("/v1/embeddings", {"input": "a"}, 400, None),
    ("/tokenize", {}, 400, "prompt"),
    ("/tokenize", {"messages": USER, "documents": [{"text": "a"}]}, 400, "documents"),
    ("/tokenize", {"messages": USER, "chat_template_kwargs": {"messages": []}}, 400,
     "chat_template_kwargs"),
    ("/detokenize", {"tokens": [-5]}, 400, "tokens"),
    ("/v1/nothing", {}, 404, None)], ids=lambda value: ascii(value)[:60])
def test_statuses(post, path, body, status, param):
    small = {"max_tokens": 2} if path in (COMPLETIONS, CHAT) and \
        "max_completion_tokens" not in body else {}
    found, answer = post(path, {**small, **body})
    assert found == status, answer
    if status >= 400:
        assert set(answer) == {"error"}
        assert set(answer["error"]) == {"message", "type", "param", "code"}
        assert answer["error"]["param"] == param and answer["error"]["message"]


@pytest.mark.parametrize(("path", "body", "said"), [
    (CHAT, {"messages": [{"role": "user", "content": "\ud800"}]}, "not valid UTF-8"),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]},
     "expected a `text`"),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "text only"),
    (COMPLETIONS, {"prompt": "a", "model": "x" * 100_000}, "the model 'xxx"),
    ("/tokenize", {"messages": [{"role": "user", "content": "\ud800"}]}, "not valid UTF-8")],
    ids=lambda value: ascii(value)[:60])
def test_messages_say_what_was_found_and_are_short(post, path, body, said):
    status, answer = post(path, body)
    message = answer["error"]["message"]
    assert status in (400, 404) and said in message and len(message) < 300


def test_a_body_that_is_no_json(server):
    for body, said in ((b"{", "is not JSON"), (b"", "the body"), (b"[1]", "the body"),
                       (b"\xff", "cannot be read"), (b"[" * 100_000, "cannot be read: "),
                       (b'{"max_tokens": 1' + b"0" * 5000 + b"}", "cannot be read: "),
                       (b'{"prompt": "a", "max_tokens": NaN}', "max_tokens: ")):
        answer = httpx.post(f"{server.url}{COMPLETIONS}", content=body,
                            headers={"content-type": "application/json"})
        message = answer.json()["error"]["message"]
        assert answer.status_code == 400 and said in message, (body[:20], message)
    assert httpx.get(f"{server.url}{COMPLETIONS}").status_code == 405


def test_tokenize_and_back(post, story):
    _, found = post("/tokenize", {"prompt": PROMPT, "return_token_strs": True})
    assert found["tokens"] == story.encode(PROMPT) and found["count"] == len(found["tokens"])
    assert found["token_strs"][1] == story.tokenizer.token(found["tokens"][1])
    assert found["max_model_len"] == story.session.max_context
    assert post("/detokenize", {"tokens": found["tokens"]}) == (200, {"prompt": PROMPT})
    _, bare = post("/tokenize", {"prompt": PROMPT, "add_special_tokens": False})
    assert bare["tokens"] == found["tokens"][1:], "without BOS"
    for more in ({}, {"chat_template_kwargs": {"end": "!"}}, {"continue_final_message": True},
                 {"tools": [LOOK]}):
        body = {"messages": [{"role": "user", "content": PROMPT}], **more}
        _, chat = post("/tokenize", body)
        _, answer = post(CHAT, {**body, "max_tokens": 1, "return_token_ids": True})
        assert answer["prompt_token_ids"] == chat["tokens"], more


def test_tools_are_rendered_by_the_template(post):
    tool = {"type": "function", "function": {"name": "look", "parameters": {}}}
    def counted(**more):
        return post(CHAT, {"messages": USER, "max_tokens": 1, **more})[1]["usage"]["prompt_tokens"]
    assert counted(tools=[tool]) > counted() == counted(tools=[tool], tool_choice="none")


def test_a_cache_salt_separates_and_a_prefix_is_found_again(post):
    body = {"prompt": "Once upon a time there was a little dog named Max. " * 3, "max_tokens": 2,
            "temperature": 0}

    def cached(**more):
        return post(COMPLETIONS, {**body, **more})[1]["usage"]["prompt_tokens_details"]
    assert cached(cache_salt="a")["cached_tokens"] == 0 < cached(cache_salt="a")["cached_tokens"]
    assert cached(cache_salt="b")["cached_tokens"] == 0


def test_a_cached_prompt_has_all_its_logprobs(post):
    body = {"prompt": list(range(300, 360)), "max_tokens": 0, "echo": True, "logprobs": 1}
    first, again = (post(COMPLETIONS, body)[1]["choices"][0]["logprobs"] for _ in range(2))
    assert len(first["tokens"]) == 60 and again["token_logprobs"][1:] == pytest.approx(
        first["token_logprobs"][1:], abs=1e-5)


def test_prompt_logprobs_by_id(post, story):
    _, answer = post(COMPLETIONS, {"prompt": PROMPT, "max_tokens": 1, "prompt_logprobs": 1})
    first, *rest = answer["choices"][0]["prompt_logprobs"]
    assert first is None
    for token, entry in zip(story.encode(PROMPT)[1:], rest, strict=True):
        assert entry[str(token)]["logprob"] <= 0 and 1 <= len(entry) <= 2


def test_minus_infinity_is_a_number(post):
    """The log-probability of a stop id, which min_tokens makes impossible, is in no list."""
    status, answer = post(COMPLETIONS, {"prompt": PROMPT, "max_tokens": 2, "min_tokens": 2,
                                        "logprobs": 20})
    assert status == 200 and len(answer["choices"][0]["logprobs"]["tokens"]) == 2


def test_ledger_health_metrics_and_page(server):
    with httpx.Client(base_url=server.url, timeout=60) as http:
        ledger = http.get("/v1/ledger").json()
        assert {e["kernel"].split(":")[0] for e in ledger["entries"]} == {"cpu_numpy"}
        assert len(ledger["hash"]) == 12 and ledger["summary"]
        assert http.get("/health").json() == {"status": "ok"}
        http.post(COMPLETIONS, json={"prompt": PROMPT, "max_tokens": 1})  # there is a count now
        before = server.metric("request_success_total")
        http.post(COMPLETIONS, json={"prompt": PROMPT, "max_tokens": 3, "n": 2})
        assert server.metric("request_success_total") == before + 2
        text = http.get("/metrics").text
        for name in ("num_requests_running", "kv_cache_usage_perc", "generation_tokens_total",
                     "time_to_first_token_seconds_count", "inter_token_latency_seconds_bucket",
                     "e2e_request_latency_seconds_sum", "prefix_cache_hits_total"):
            assert f"\nkernelyard:{name}{{" in text, name
        page = http.get("/")
        assert page.headers["content-type"].startswith("text/html")
        assert not re.search(r"""(src|href)=["']?(https?:)?//|@import|url\(""", page.text), \
            "the page needs nothing from outside"


def test_the_first_lines(server):
    assert re.search(r"KV cache: [\d,]+ tokens, \d+ sequences of 512 at once", server.said)
    assert re.search(r"kernels: \d+ nodes cpu_numpy; ledger [0-9a-f]{12}", server.said)


def test_schemathesis_finds_no_failure_of_the_server(server, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json",
         "--max-examples", "4", "--phases", "fuzzing,examples", "--checks", "not_a_server_error",
         "--seed", "1", "--no-color", "--request-timeout", "300"], capture_output=True,
        text=True, timeout=300, cwd=tmp_path)  # it keeps what it has found
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    server.idle()
