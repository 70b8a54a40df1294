"""Tries langchain-openai: its texts are those of OpenAI's own client."""

import openai
from common import PROMPTS, SAMPLED, equal, target
from langchain_openai import ChatOpenAI, OpenAI

t = target()
own = openai.OpenAI(base_url=t.v1, api_key=t.key, max_retries=0)
where = {"model": t.model, "base_url": t.v1, "api_key": t.key, "max_retries": 0}
chat = ChatOpenAI(**where, **SAMPLED, stream_usage=True)
plain = OpenAI(**where, **SAMPLED)

chats, texts = [], []
for prompt in PROMPTS:
    answer = own.chat.completions.create(
        model=t.model, messages=[{"role": "user", "content": prompt}], **SAMPLED)
    chats.append(answer.choices[0].message.content)
    found = chat.invoke(prompt)
    equal("chat", found.content, chats[-1])
    equal("usage", found.usage_metadata["total_tokens"], answer.usage.total_tokens)
    parts = list(chat.stream(prompt))
    equal("streamed chat", "".join(p.content for p in parts), chats[-1])
    equal("usage of a stream", sum(p.usage_metadata["output_tokens"] for p in parts
                                   if p.usage_metadata), answer.usage.completion_tokens)
    texts.append(own.completions.create(model=t.model, prompt=prompt, **SAMPLED).choices[0].text)
    equal("completion", plain.invoke(prompt), texts[-1])
    equal("streamed completion", "".join(plain.stream(prompt)), texts[-1])
equal("batch of chats", [m.content for m in chat.batch(list(PROMPTS))], chats)
equal("batch of completions", plain.batch(list(PROMPTS)), texts)
scored = chat.bind(logprobs=True, top_logprobs=2).invoke(PROMPTS[0])
tokens = [c["token"] for c in scored.response_metadata["logprobs"]["content"]]
if scored.response_metadata["finish_reason"] == "stop":
    tokens.pop()  # the one that ends the text is no part of it
equal("tokens with log-probabilities", "".join(tokens), chats[0])
print(f"{len(PROMPTS)} chats and completions with a seed by `invoke`, "
      "`stream` and `batch`: texts and usage equal the openai client's; log-probabilities")
