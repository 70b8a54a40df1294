"""Answers /v1/chat/completions."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from models.serving.http.errors import JsonResponse
from models.serving.http.logprobs import chat_logprobs
from models.serving.http.respond import Chunk, EventStream, Frame, News, collect, while_connected
from models.serving.http.schema import ChatRequest
from models.serving.http.service import Service
from models.serving.http.tools import ToolText, tool_names
from models.serving.link.stream import Stream
from models.serving.openai.answers import chat_answer, usage
from models.serving.openai.body import CHAT_UNBUILT, chat_params
from models.serving.openai.tool_calls import offered_tools
from models.serving.request import CompletionOutput


async def converse(service: Service, body: ChatRequest, request: Request) -> Response:
    """Answer a request, whole or as a stream."""
    job = _Job(service, body)
    stream = await while_connected(request, job.start())
    if body.stream:
        return EventStream(_Parts(job, stream), [stream])
    await while_connected(request, collect([stream]))
    return JsonResponse(job.answer(stream))


class _Job:
    """Makes the answer to one request."""

    def __init__(self, service: Service, body: ChatRequest) -> None:
        self._service, self.body = service, body
        service.check_model(body.model)
        body.check(CHAT_UNBUILT)
        self._top, self._tools = body.top_logprobs or 0, offered_tools(body.given)
        short = body.max_completion_tokens
        self._field = "max_tokens" if short is None else "max_completion_tokens"
        self._tokens = body.max_tokens if short is None else short
        self._params = chat_params(
            body.given, service.defaults,
            None if service.conversations is None else service.conversations.template)
        self.head: dict[str, Any] = {"id": f"chatcmpl-{secrets.token_hex(12)}",
                                      "created": int(time.time()), "model": service.name,
                                      "system_fingerprint": service.fingerprint}

    async def start(self) -> Stream:
        """Render and encode the conversation, and submit it."""
        body, service = self.body, self._service
        ids = await service.converse(
            [m.model_dump(exclude_unset=True) for m in body.messages], tools=self._tools,
            documents=body.documents, more=body.chat_template_kwargs,
            add_generation_prompt=body.add_generation_prompt,
            continue_final_message=body.continue_final_message)
        service.max_tokens(self._tokens, len(ids), self._field)
        (stream,) = await service.submit([(ids, None)], self._params, self.head["id"],
                                         body.cache_salt)
        return stream

    def logprobs(self, one: CompletionOutput, tokens: slice) -> dict[str, Any] | None:
        if one.logprobs is None:
            return None
        return chat_logprobs(one.token_ids[tokens], one.logprobs[tokens], self._top,
                             self._service.engine.texts)

    def tool_text(self) -> ToolText | None:
        encoder = self._service.conversations
        if not self._tools or encoder is None:
            return None
        return ToolText(tool_names(self._tools), encoder.template.choose(tools=True))

    def answer(self, stream: Stream) -> dict[str, Any]:
        """Return the whole answer."""
        encoder = self._service.conversations
        return chat_answer(self.body.given, stream.output, self.head,
                           self._service.engine.texts,
                           None if encoder is None else encoder.template)


class _Parts:
    """Makes the parts of a streamed answer: for each text its role, its pieces (as events where
    nothing else belongs to them), its end."""

    def __init__(self, job: _Job, stream: Stream) -> None:
        self._job, self._stream, outputs = job, stream, stream.output.outputs
        self._head: dict[str, Any] = {**job.head, "object": "chat.completion.chunk"}
        self._news, self._tools = [News() for _ in outputs], [job.tool_text() for _ in outputs]
        self._frames = [Frame(self._chunk(one.index, {"content": ""}), "content")
                        for one in outputs]

    def begin(self) -> list[Chunk]:
        return [self._chunk(one.index, {"role": "assistant", "content": ""})
                for one in self._stream.output.outputs]

    def more(self, stream: Stream) -> list[Chunk]:
        return [chunk for one in stream.output.outputs for chunk in self._pieces(one)]

    def end(self) -> list[Chunk]:
        return [{**self._head, "choices": [], "usage": usage([self._stream.output])}] if (
            self._job.body.include_usage) else []

    def _chunk(self, index: int, delta: dict[str, Any], **more: object) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None, **more}
        body = self._job.body
        counted = {"usage": usage([self._stream.output]) if body.continuous_usage else None}
        return {**self._head, "choices": [choice], **(counted if body.include_usage else {})}

    def _pieces(self, one: CompletionOutput) -> Iterator[Chunk]:
        text, tokens, ended = self._news[one.index].take(one)
        reason, calls, body = one.finish_reason, list[dict[str, Any]](), self._job.body
        if (calling := self._tools[one.index]) is not None:
            text = calling.push(text)
            if ended:
                rest, calls = calling.finish()
                text += rest
        if text or tokens.start < tokens.stop:
            more = {"token_ids": one.token_ids[tokens]} if body.return_token_ids else {}
            if more or one.logprobs is not None or body.continuous_usage:
                yield self._chunk(one.index, {"content": text},
                                  logprobs=self._job.logprobs(one, tokens), **more)
            else:
                yield self._frames[one.index].event(text)
        if calls:
            reason = "tool_calls"
            yield self._chunk(one.index, {"tool_calls": calls})
        if ended:
            yield self._chunk(one.index, {}, finish_reason=reason, stop_reason=one.stop_reason)
