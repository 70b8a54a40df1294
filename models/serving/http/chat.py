"""Answers /v1/chat/completions."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from models.serving.http.errors import ApiError, JsonResponse
from models.serving.http.logprobs import chat_logprobs, prompt_entries
from models.serving.http.respond import EventStream, News, collect, usage, while_connected
from models.serving.http.schema import ChatRequest
from models.serving.http.service import Service
from models.serving.http.tools import ToolText, tool_names
from models.serving.link.stream import Stream, changes
from models.serving.openai.body import CHAT_UNBUILT
from models.serving.params import LOGPROBS
from models.serving.request import CompletionOutput


async def converse(service: Service, body: ChatRequest, request: Request) -> Response:
    """Answer a request, whole or as a stream."""
    job = _Job(service, body)
    stream = await while_connected(request, job.start())
    if body.stream:
        return EventStream(job.chunks(stream), [stream])
    await while_connected(request, collect([stream]))
    return JsonResponse(job.answer(stream))


class _Job:
    """Makes the answer to one request."""

    def __init__(self, service: Service, body: ChatRequest) -> None:
        self._service, self._body = service, body
        service.check_model(body.model)
        body.check(CHAT_UNBUILT)
        self._top = body.top_logprobs or 0
        if body.top_logprobs is not None and not body.logprobs:
            raise ApiError(400, "top_logprobs goes with logprobs: true", param="top_logprobs")
        if not 0 <= self._top <= LOGPROBS:
            raise ApiError(400, f"top_logprobs is {self._top}, expected 0 to {LOGPROBS}",
                           param="top_logprobs")
        if body.add_special_tokens:
            raise ApiError(400, "add_special_tokens is true, and a chat template writes them "
                           "itself; leave it out", param="add_special_tokens")
        choice = body.tool_choice
        if choice not in (None, "auto", "none"):
            raise ApiError(400, f"tool_choice is {choice!r}, and this server cannot force a call; "
                           "expected 'auto' or 'none'", param="tool_choice",
                           code="unsupported_parameter")
        self._tools = None if choice == "none" else body.tools or None
        short = body.max_completion_tokens
        self._field = "max_tokens" if short is None else "max_completion_tokens"
        self._tokens = body.max_tokens if short is None else short
        self._params = body.params(service.defaults, self._tokens,
                                   self._top if body.logprobs else None)
        self._head: dict[str, Any] = {"id": f"chatcmpl-{secrets.token_hex(12)}",
                                      "created": int(time.time()), "model": service.name,
                                      "system_fingerprint": service.fingerprint}

    async def start(self) -> Stream:
        """Render and encode the conversation, and submit it."""
        body, service = self._body, self._service
        ids = await service.converse(
            [m.model_dump(exclude_unset=True) for m in body.messages], tools=self._tools,
            documents=body.documents, more=body.chat_template_kwargs,
            add_generation_prompt=body.add_generation_prompt,
            continue_final_message=body.continue_final_message)
        service.max_tokens(self._tokens, len(ids), self._field)
        (stream,) = await service.submit([(ids, None)], self._params, self._head["id"],
                                         body.cache_salt)
        return stream

    def _logprobs(self, one: CompletionOutput, tokens: slice) -> dict[str, Any] | None:
        if one.logprobs is None:
            return None
        return chat_logprobs(one.token_ids[tokens], one.logprobs[tokens], self._top,
                             self._service.engine.texts)

    def _tool_text(self) -> ToolText | None:
        encoder = self._service.conversations
        if not self._tools or encoder is None:
            return None
        return ToolText(tool_names(self._tools), encoder.template.choose(tools=True))

    def answer(self, stream: Stream) -> dict[str, Any]:
        """Return the whole answer."""
        choices = []
        for one in stream.output.outputs:
            message: dict[str, Any] = {"role": "assistant", "content": one.text, "refusal": None}
            reason = one.finish_reason
            if (tools := self._tool_text()) is not None:
                before = tools.push(one.text)
                rest, calls = tools.finish()
                message["content"] = before + rest
                if calls:
                    reason = "tool_calls"
                    message |= {"content": before.strip() or None, "tool_calls": [
                        {k: v for k, v in call.items() if k != "index"} for call in calls]}
            choice: dict[str, Any] = {
                "index": one.index, "message": message,
                "logprobs": self._logprobs(one, slice(None)),
                "finish_reason": reason, "stop_reason": one.stop_reason}
            if self._body.return_token_ids:
                choice["token_ids"] = one.token_ids
            choices.append(choice)
        answer = {**self._head, "object": "chat.completion", "choices": choices,
                  "usage": usage([stream])}
        if self._body.prompt_logprobs is not None:
            answer["prompt_logprobs"] = prompt_entries(stream.output.prompt_logprobs)
        if self._body.return_token_ids:
            answer["prompt_token_ids"] = stream.output.prompt_token_ids
        return answer

    async def chunks(self, stream: Stream) -> AsyncIterator[dict[str, Any]]:
        """Yield the parts of a streamed answer: for each text its role, its pieces, its end."""
        head: dict[str, Any] = {**self._head, "object": "chat.completion.chunk"}
        body, outputs = self._body, stream.output.outputs

        def chunk(index: int, delta: dict[str, Any], **more: object) -> dict[str, Any]:
            choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None,
                      **more}
            counted = {"usage": usage([stream]) if body.continuous_usage else None}
            return {**head, "choices": [choice], **(counted if body.include_usage else {})}
        for one in outputs:
            yield chunk(one.index, {"role": "assistant", "content": ""})
        news, tools = [News() for _ in outputs], [self._tool_text() for _ in outputs]
        async for _ in changes([stream]):
            for one, sent, calling in zip(outputs, news, tools, strict=True):
                text, tokens, ended = sent.take(one)
                reason, calls = one.finish_reason, list[dict[str, Any]]()
                if calling is not None:
                    text = calling.push(text)
                    if ended:
                        rest, calls = calling.finish()
                        text += rest
                more: dict[str, object] = {}
                if body.return_token_ids:
                    more["token_ids"] = one.token_ids[tokens]
                if text or tokens.start < tokens.stop:
                    yield chunk(one.index, {"content": text},
                                logprobs=self._logprobs(one, tokens), **more)
                if calls:
                    reason = "tool_calls"
                    yield chunk(one.index, {"tool_calls": calls})
                if ended:
                    yield chunk(one.index, {}, finish_reason=reason, stop_reason=one.stop_reason)
        if body.include_usage:
            yield {**head, "choices": [], "usage": usage([stream])}
