"""Defines what a client may send. A field that would change the answer and is not built is refused
by name; other fields that are not known are accepted."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from core.reading import shown
from models.serving.http.errors import ApiError
from models.serving.openai.body import MOST_TEXTS, check_body

MOST_STOPS = 64  # stop texts of one request


class StreamOptions(BaseModel):
    """Says what a stream tells beside text."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class Sampled(BaseModel):
    """Holds the fields that completions and chats share. None is a field's default."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())

    model: str | None = None
    max_tokens: int | None = None
    n: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool | None = None
    min_tokens: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    include_stop_str_in_output: bool | None = None
    prompt_logprobs: int | None = None
    priority: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    return_token_ids: bool | None = None
    add_special_tokens: bool | None = None
    cache_salt: str | None = None
    response_format: dict[str, Any] | None = None
    structured_outputs: dict[str, Any] | None = None

    def check(self, unbuilt: Mapping[str, tuple[object, ...]]) -> None:
        """Raise BodyError for a field that is not built, ApiError for one that contradicts
        another."""
        check_body({k: v for k, v in (self.model_extra or {}).items() if k in unbuilt}, unbuilt)
        if self.stream_options is not None and not self.stream:
            raise ApiError(400, "stream_options goes with stream: true", param="stream_options")
        if (self.n or 1) > MOST_TEXTS:
            raise ApiError(400, f"n is {self.n}, expected at most {MOST_TEXTS}", param="n")
        if isinstance(self.stop, list) and len(self.stop) > MOST_STOPS:
            raise ApiError(400, f"stop has {len(self.stop)} texts, expected at most {MOST_STOPS}",
                           param="stop")
        if not (self.cache_salt or "").isprintable():
            raise ApiError(400, f"cache_salt is {shown(self.cache_salt)}, expected printable "
                           "characters", param="cache_salt")

    @cached_property
    def given(self) -> dict[str, Any]:
        """Hold the fields that have a value, as `models.serving.openai` reads them."""
        return {k: v for k, v in self.model_dump().items() if v is not None}

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def continuous_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.continuous_usage_stats)


class CompletionRequest(Sampled):
    """Holds a request to /v1/completions."""

    prompt: str | list[int] | list[str] | list[list[int]]
    echo: bool | None = None
    logprobs: int | None = None


class Message(BaseModel):
    """Holds a message of a conversation; other keys go to the template as they are."""

    model_config = ConfigDict(extra="allow")

    role: str
    content: str | list[dict[str, Any]] | None = None


class Conversation(BaseModel):
    """Holds what a chat template takes."""

    messages: list[Message] = Field(min_length=1)
    tools: list[dict[str, Any]] | None = None
    documents: list[dict[str, Any]] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool = False
    chat_template_kwargs: dict[str, Any] | None = None


class ChatRequest(Sampled, Conversation):
    """Holds a request to /v1/chat/completions."""

    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None


class TokenizeRequest(BaseModel):
    """Holds a request to /tokenize: a prompt, or a conversation as a chat has it."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())

    model: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = Field(None, min_length=1)
    tools: list[dict[str, Any]] | None = None
    documents: list[dict[str, Any]] | None = None
    add_special_tokens: bool = True
    add_generation_prompt: bool | None = None
    continue_final_message: bool = False
    chat_template_kwargs: dict[str, Any] | None = None
    return_token_strs: bool | None = None


class DetokenizeRequest(BaseModel):
    """Holds a request to /detokenize."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())

    model: str | None = None
    tokens: list[int]

