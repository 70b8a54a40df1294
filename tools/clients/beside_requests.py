"""Lists the requests of beside_vllm.py, and the differences that have a reason."""

from __future__ import annotations

from typing import Any

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
USER = [{"role": "user", "content": "hi"}]
GREEDY = {"prompt": "Once upon a time", "temperature": 0, "max_tokens": 12}
TALK = {"messages": USER, "temperature": 0, "max_tokens": 8}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}

#: (name, path, body)
REQUESTS: list[tuple[str, str, Any]] = [
    ("a greedy completion", COMPLETIONS, GREEDY),
    ("log-probabilities", COMPLETIONS, {**GREEDY, "logprobs": 2}),
    ("token ids", COMPLETIONS, {"prompt": list(range(5, 45)), "max_tokens": 24, "temperature": 0,
                                "ignore_eos": True, "return_token_ids": True}),
    ("echo with log-probabilities", COMPLETIONS, {
        "prompt": [5, 6, 7], "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1}),
    ("log-probabilities of a prompt", COMPLETIONS, {**GREEDY, "prompt_logprobs": 1}),
    ("several prompts", COMPLETIONS, {**GREEDY, "prompt": ["Once", "One day"]}),
    ("n 2", COMPLETIONS, {"prompt": "a", "max_tokens": 3, "n": 2, "seed": 1}),
    ("stop", COMPLETIONS, {**GREEDY, "max_tokens": 30, "stop": ["."]}),
    ("logit_bias", COMPLETIONS, {**GREEDY, "max_tokens": 3, "logit_bias": {"10": 100}}),
    ("a stream", COMPLETIONS, {**GREEDY, "stream": True,
                               "stream_options": {"include_usage": True}}),
    ("a chat", CHAT, TALK),
    ("a streamed chat", CHAT, {**TALK, "stream": True, "stream_options": {"include_usage": True}}),
    ("a chat with log-probabilities", CHAT, {**TALK, "logprobs": True, "top_logprobs": 2}),
    ("content in parts", CHAT, {**TALK, "messages": [
        {"role": "user", "content": [{"type": "text", "text": "hi"}]}]}),
    ("max_completion_tokens", CHAT, {"messages": USER, "max_completion_tokens": 4, "seed": 1}),
    ("/tokenize", "/tokenize", {"prompt": "Once upon a time"}),
    ("/tokenize of a chat", "/tokenize", {"messages": USER}),
    ("/detokenize", "/detokenize", {"tokens": [5, 6, 7]}),
    ("an unknown field", COMPLETIONS, {**GREEDY, "nonsense": 2}),
    ("unknown model", COMPLETIONS, {"model": "x", "prompt": "a"}),
    ("unknown model of a chat", CHAT, {"model": "x", "messages": USER}),
    ("temperature -1", COMPLETIONS, {"prompt": "a", "temperature": -1}),
    ("top_p 2", COMPLETIONS, {"prompt": "a", "top_p": 2}),
    ("max_tokens 0", COMPLETIONS, {"prompt": "a", "max_tokens": 0}),
    ("max_tokens -1", COMPLETIONS, {"prompt": "a", "max_tokens": -1}),
    ("max_tokens that is text", COMPLETIONS, {"prompt": "a", "max_tokens": "many"}),
    ("max_tokens beyond the context", COMPLETIONS, {"prompt": "a", "max_tokens": 100_000}),
    ("a prompt that is too long", COMPLETIONS, {"prompt": "a " * 2000}),
    ("a chat that is too long", CHAT, {"messages": [{"role": "user", "content": "a " * 2000}]}),
    ("an empty prompt", COMPLETIONS, {"prompt": "", "max_tokens": 2}),
    ("an empty list of ids", COMPLETIONS, {"prompt": [], "max_tokens": 2}),
    ("no prompt", COMPLETIONS, {}),
    ("an id beyond the vocabulary", COMPLETIONS, {"prompt": [99_999_999], "max_tokens": 2}),
    ("a negative id", COMPLETIONS, {"prompt": [-1], "max_tokens": 2}),
    ("no JSON", COMPLETIONS, b"{"),
    ("no messages", CHAT, {"messages": []}),
    ("a picture", CHAT, {"messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}]}),
    ("logprobs 100", COMPLETIONS, {"prompt": "a", "max_tokens": 3, "logprobs": 100}),
    ("top_logprobs 100", CHAT, {"messages": USER, "logprobs": True, "top_logprobs": 100}),
    ("top_logprobs without logprobs", CHAT, {"messages": USER, "top_logprobs": 2}),
    ("stream_options without stream", COMPLETIONS, {
        "prompt": "a", "max_tokens": 2, "stream_options": {"include_usage": True}}),
    ("logit_bias of an unknown id", COMPLETIONS, {
        "prompt": "a", "max_tokens": 2, "logit_bias": {"99999": 1}}),
    ("n 0", COMPLETIONS, {"prompt": "a", "max_tokens": 2, "n": 0}),
    ("suffix", COMPLETIONS, {"prompt": "a", "max_tokens": 2, "suffix": "b"}),
    ("a JSON schema", CHAT, {"messages": USER, "max_tokens": 4, "response_format": SCHEMA}),
    ("a required tool that is not there", CHAT, {"messages": USER, "tool_choice": "required"}),
    ("embeddings", "/v1/embeddings", {"input": "a"}),
    ("an unknown path", "/v1/nothing", {})]

#: name of a request: why its status differs
REASONS = {
    "an empty prompt": "here it is encoded, as BOS alone",
    "embeddings": "here the answer says why there are none"}

#: (pattern of a field, letter, why it differs)
KNOWN = [
    (r"(\[\]\.)?usage\.prompt_tokens_details\.cached_tokens", "a",
     "`cached_tokens` is always told here; vLLM has an option for it"),
    (r"error\.code", "b", "`error.code` is OpenAI's word here, or null; vLLM repeats the status"),
    (r"error\.param", "c", "one of the two servers does not name the field that is wrong"),
    (r"choices\[\]\.prompt_logprobs\[\]\..*", "d",
     "vLLM tells echoed log-probabilities a second time, by id; here `prompt_logprobs` asks for "
     "that"),
    (r"detail|error\.(message|type)", "e", "here an unknown path, too, gets OpenAI's error object")]
