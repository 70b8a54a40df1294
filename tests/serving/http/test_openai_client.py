"""Tests the server with the client that OpenAI publishes."""

import asyncio

import openai
import pytest

MODEL, PROMPT = "stories-llama2", "Once upon a time"
MESSAGES = [{"role": "user", "content": PROMPT}]


@pytest.fixture(scope="module")
def greedy(story):
    """Return what the model itself generates."""
    return story.generate(PROMPT, max_new_tokens=24).run()


def test_models(client):
    (model,) = client.models.list()
    assert model.id == MODEL and client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


def test_a_completion_is_what_the_model_generates(client, greedy, story):
    answer = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=24, temperature=0)
    (choice,) = answer.choices
    assert choice.text == greedy.text and choice.finish_reason == "length"
    ids = story.encode(PROMPT)
    assert answer.usage.prompt_tokens == len(ids) and answer.usage.completion_tokens == 24
    assert answer.system_fingerprint.startswith(f"{MODEL}-")
    by_ids = client.completions.create(model=MODEL, prompt=ids, max_tokens=24, temperature=0)
    assert by_ids.choices[0].text == greedy.text


@pytest.mark.parametrize("seed", [7, 2**40 + 5])
def test_a_seed_gives_what_the_model_samples(client, story, seed):
    answer = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=16, seed=seed,
                                       temperature=0.9, top_p=0.95)
    expected = story.generate(PROMPT, max_new_tokens=16, seed=seed, temperature=0.9,
                              top_p=0.95).run()
    assert answer.choices[0].text == expected.text


def test_a_stream_holds_the_whole_text(client, greedy):
    chunks = list(client.completions.create(
        model=MODEL, prompt=PROMPT, max_tokens=24, temperature=0, stream=True,
        stream_options={"include_usage": True}))
    *parts, last = chunks
    assert "".join(c.choices[0].text for c in parts) == greedy.text
    assert parts[-1].choices[0].finish_reason == "length"
    assert all(c.choices[0].finish_reason is None for c in parts[:-1])
    assert last.choices == [] and last.usage.completion_tokens == 24
    assert len({c.id for c in chunks}) == 1


def test_a_chat_and_its_stream(client, greedy):
    settings = {"model": MODEL, "messages": MESSAGES, "temperature": 0}
    answer = client.chat.completions.create(**settings, max_completion_tokens=24)
    assert answer.choices[0].message.role == "assistant"
    # a rendered conversation has the special tokens that its template writes: here, no BOS
    assert answer.usage.prompt_tokens > 0 and answer.choices[0].finish_reason == "length"
    chunks = list(client.chat.completions.create(**settings, max_tokens=24, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks) \
        == answer.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == "length"
    parts = [{"role": "user", "content": [{"type": "text", "text": PROMPT}]}]
    again = client.chat.completions.create(**{**settings, "messages": parts}, max_tokens=24)
    assert again.choices[0].message.content == answer.choices[0].message.content


def test_logprobs_of_a_completion(client, story):
    answer = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=4, temperature=0,
                                       logprobs=2, echo=True)
    (choice,), ids = answer.choices, story.encode(PROMPT)
    found = choice.logprobs
    assert choice.text.startswith(PROMPT)
    assert len(found.tokens) == len(ids) + 4 == len(found.top_logprobs) == len(found.text_offset)
    assert found.token_logprobs[0] is None and found.top_logprobs[0] is None
    assert "".join(found.tokens[1:]).strip() == choice.text
    for token, logprob, top in zip(found.tokens[len(ids):], found.token_logprobs[len(ids):],
                                   found.top_logprobs[len(ids):], strict=True):
        assert top[token] == logprob == max(top.values()) and len(top) == 2
    logits = story.logits(ids)
    for position in range(1, len(ids)):
        row = logits[position - 1].astype("f8")
        expected = row[ids[position]] - row.max()
        import numpy as np
        expected -= np.log(np.exp(row - row.max()).sum())
        assert found.token_logprobs[position] == pytest.approx(expected, abs=1e-4)


def test_echo_alone_scores_a_prompt(client):
    answer = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=0, logprobs=1,
                                       echo=True)
    assert answer.choices[0].text == PROMPT and answer.usage.completion_tokens == 0
    assert len(answer.choices[0].logprobs.tokens) == answer.usage.prompt_tokens


def test_logprobs_of_a_chat(client):
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=3,
                                            temperature=0, logprobs=True, top_logprobs=3)
    content = answer.choices[0].logprobs.content
    assert len(content) == 3 and all(len(c.top_logprobs) == 3 for c in content)
    for c in content:
        assert c.token == c.top_logprobs[0].token and c.logprob == c.top_logprobs[0].logprob <= 0
        assert bytes(c.bytes).decode() == c.token


def test_several_texts_of_several_prompts(client):
    settings = {"model": MODEL, "prompt": [PROMPT, "The dog"], "max_tokens": 8, "n": 2, "seed": 3,
                "temperature": 1.0}
    answer = client.completions.create(**settings)
    assert [c.index for c in answer.choices] == [0, 1, 2, 3]
    assert answer.choices[0].text != answer.choices[1].text
    texts = dict.fromkeys(range(4), "")
    for chunk in client.completions.create(**settings, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == {c.index: c.text for c in answer.choices}
    alone = client.completions.create(**{**settings, "prompt": "The dog", "n": 1})
    assert alone.choices[0].text == answer.choices[2].text


@pytest.mark.parametrize("stream", [False, True])
def test_stop_strings(client, greedy, stream):
    stop = greedy.text[30:33]
    answer = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=24, temperature=0,
                                       stop=[stop, "zzz"], stream=stream)
    if stream:
        chunks = list(answer)
        text, reason = "".join(c.choices[0].text for c in chunks), \
            chunks[-1].choices[0].finish_reason
    else:
        text, reason = answer.choices[0].text, answer.choices[0].finish_reason
    assert text == greedy.text[:greedy.text.index(stop)] and reason == "stop"


def test_logit_bias_and_penalties(client):
    biased = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=5, temperature=0,
                                       logit_bias={"261": 100}, extra_body={"return_token_ids": 1})
    assert biased.choices[0].token_ids == [261] * 5
    punished = client.completions.create(
        model=MODEL, prompt=PROMPT, max_tokens=5, temperature=0, logit_bias={"261": 50},
        frequency_penalty=2, presence_penalty=2, extra_body={"return_token_ids": True})
    assert punished.choices[0].token_ids == [261] * 5, "50 outweighs 2 + 5 * 2"


def test_asynchronous_clients_at_once(server, greedy):
    async def many():
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="any", timeout=60,
                                      max_retries=0) as client:
            async def one(stream: bool) -> str:
                answer = await client.completions.create(
                    model=MODEL, prompt=PROMPT, max_tokens=24, temperature=0, stream=stream)
                if not stream:
                    return answer.choices[0].text
                return "".join([c.choices[0].text async for c in answer])
            return await asyncio.gather(*(one(bool(i % 2)) for i in range(24)))
    assert set(asyncio.run(many())) == {greedy.text}
    server.idle()


def test_errors_are_the_clients_own(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.completions.create(model="missing", prompt="a")
    assert caught.value.code == "model_not_found" and caught.value.param == "model"
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=MODEL, prompt="a", temperature=-1)
    assert caught.value.param == "temperature"
    with pytest.raises(openai.BadRequestError, match="no embeddings"):
        client.embeddings.create(model=MODEL, input="a")
