"""Tries litellm: its texts are those of OpenAI's own client."""

import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would ask another machine for prices

import litellm
import openai
from common import PROMPTS, SAMPLED, equal, fail, target

litellm.telemetry = False
t = target()
own = openai.OpenAI(base_url=t.v1, api_key=t.key, max_retries=0)
chat = {"model": f"openai/{t.model}", "api_base": t.v1, "api_key": t.key, "num_retries": 0}
plain = {**chat, "model": f"text-completion-openai/{t.model}"}

for prompt in PROMPTS:
    asked = {"messages": [{"role": "user", "content": prompt}], **SAMPLED}
    answer = own.chat.completions.create(model=t.model, **asked)
    expected = answer.choices[0].message.content
    found = litellm.completion(**chat, **asked)
    equal("chat", found.choices[0].message.content, expected)
    equal("usage", found.usage.total_tokens, answer.usage.total_tokens)
    chunks = litellm.completion(**chat, **asked, stream=True)
    equal("streamed chat", "".join(c.choices[0].delta.content or "" for c in chunks), expected)
    asked = {"prompt": prompt, **SAMPLED}
    expected = own.completions.create(model=t.model, **asked).choices[0].text
    equal("completion", litellm.text_completion(**plain, **asked).choices[0].text, expected)
    chunks = litellm.text_completion(**plain, **asked, stream=True)
    equal("streamed completion", "".join(c.choices[0].text or "" for c in chunks), expected)

ask = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
for error, wrong in ((litellm.AuthenticationError, {"api_key": "wrong"}),
                     (litellm.NotFoundError, {"model": "openai/missing"}),
                     (litellm.BadRequestError, {"temperature": -1})):
    try:
        litellm.completion(**{**chat, **ask, **wrong})
    except error:
        continue
    except Exception as other:
        fail(f"{wrong} raises {type(other).__name__}, expected {error.__name__}")
    fail(f"{wrong} raises nothing, expected {error.__name__}")
print(f"{len(PROMPTS)} chats and completions with a seed, whole and streamed: texts "
      "and usage equal the openai client's; 401, 404 and 400 are litellm's own errors")
