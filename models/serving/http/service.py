"""Service: holds what every endpoint needs of the model that is served."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.errors import PromptError, TokenizerError
from core.reading import shown
from models.serving.async_engine import AsyncEngine
from models.serving.conversation import ConversationEncoder
from models.serving.http.errors import ApiError
from models.serving.link.stream import Stream
from models.serving.openai.prompts import check_texts, flat_messages
from models.serving.params import TEXTS, SamplingParams
from models.serving.prompt import Prompt, checked_text
from models.tokenizers.base import Tokenizer


@dataclass
class Service:
    """Holds the engine under the name that clients know.

    name      the model's
    mode      what else decides the bits of an answer, such as `f32` or `f32-deterministic`
    notes     what a user should know of how the model's files were read
    conversations  encodes chats, None for a base model
    defaults  fields of SamplingParams where a request says nothing; its `stop` always holds
    max_queue  requests that may wait, so the most texts of one request
    """

    engine: AsyncEngine
    name: str
    mode: str = "default"
    notes: Sequence[str] = ()
    conversations: ConversationEncoder | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    max_queue: int = TEXTS
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def tokenizer(self) -> Tokenizer:
        return self.engine.tokenizer

    @property
    def fingerprint(self) -> str:
        """Return what an answer depends on beside the request: model, kernels and mode."""
        return f"{self.name}-{self.engine.facts.ledger_hash}-{self.mode}"

    def check_model(self, name: str | None) -> None:
        """Raise ApiError for the name of another model; none at all is this one."""
        if name is not None and name != self.name:
            raise ApiError(404, f"the model {shown(name)} does not exist; this server has "
                           f"{self.name!r}", param="model", code="model_not_found")

    # prompts

    async def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Return the ids of a text, as Tokenizer.encode does. Raises PromptError."""
        checked_text(text)
        if len(text) <= 2000:
            return self.tokenizer.encode(text, special=special)
        return await self.engine.in_thread(lambda: self.tokenizer.encode(text, special=special))

    async def converse(self, messages: Sequence[Mapping[str, Any]], *,
                       tools: Sequence[Mapping[str, Any]] | None = None,
                       documents: Sequence[Mapping[str, Any]] | None = None,
                       more: Mapping[str, Any] | None = None,
                       **how: bool | None) -> list[int]:
        """Return the ids of a conversation, by the model's template. Raises PromptError or
        ApiError.

        more  variables of the template that the client adds
        how   `add_generation_prompt` and `continue_final_message`
        """
        encoder = self.conversations
        if encoder is None:
            raise ApiError(400, f"{self.name} has no chat template: it is a base model; use "
                           "/v1/completions, or start the server with --chat-template FILE",
                           param="messages", code="no_chat_template")
        source = encoder.template.choose(tools=tools is not None)
        for name, value in (("tools", tools), ("documents", documents)):
            if value and name not in source:
                raise ApiError(400, f"the chat template of {self.name} takes no {name}; leave "
                               "them out", param=name, code="unsupported_parameter")
        known = {"messages", "tools", "documents", "template", *how}
        if wrong := sorted(known & set(more or {})):
            raise ApiError(400, f"chat_template_kwargs has {', '.join(wrong)}, which are fields of "
                           "the request", param="chat_template_kwargs")
        flat, extra = flat_messages(list(messages)), {**(more or {}), **how}
        try:
            return await self.engine.in_thread(lambda: encoder.encode(
                flat, tools=tools, documents=documents, **extra))
        except (TokenizerError, PromptError) as error:
            raise ApiError(400, str(error), param="messages", code="chat_template") from None

    # requests

    def max_tokens(self, asked: int | None, prompt: int, field: str = "max_tokens") -> int | None:
        """Return how many tokens may be generated after a prompt of so many. Raises ApiError where
        both do not fit."""
        limit = self.engine.facts.max_model_len
        if prompt > limit or (asked is not None and prompt + asked > limit):
            wanted = f" and {asked} to be generated" if asked is not None else ""
            raise ApiError(400, f"the prompt has {prompt} tokens{wanted}; the context of this "
                           f"model holds {limit}. Shorten the prompt"
                           + (f", or lower {field}" if wanted else ""),
                           param=field if prompt <= limit else "prompt",
                           code="context_length_exceeded")
        return asked

    async def submit(self, prompts: Sequence[tuple[Prompt, str | None]], params: SamplingParams,
                     name: str, salt: str | None) -> list[Stream]:
        """Return the streams of prompts (ids, and the text where known), all accepted, or none."""
        check_texts(len(prompts), params.n, self.max_queue)
        changed = asyncio.Event()
        tasks = [asyncio.ensure_future(self.engine.submit(
            ids, params, request_id=f"{name}-{i}", salt=salt or "", text=text, changed=changed))
            for i, (ids, text) in enumerate(prompts)]
        try:
            return list(await asyncio.gather(*tasks))
        except BaseException:
            for task in tasks:
                task.cancel()
            for found in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(found, Stream):
                    found.close()
            raise

