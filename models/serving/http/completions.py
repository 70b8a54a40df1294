"""Answers /v1/completions."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from core.errors import OptionError
from models.serving.http.errors import ApiError, JsonResponse
from models.serving.http.logprobs import completion_logprobs
from models.serving.http.respond import EventStream, Frame, News, collect, while_connected
from models.serving.http.schema import CompletionRequest
from models.serving.http.service import Service
from models.serving.link.stream import Stream, changes
from models.serving.openai.answers import completion_answer, usage
from models.serving.openai.body import COMPLETION_UNBUILT, completion_params, echoes_only

MOST_PROMPTS = 2048  # of one request


async def complete(service: Service, body: CompletionRequest, request: Request) -> Response:
    """Answer a request, whole or as a stream."""
    job = _Job(service, body)
    streams = await while_connected(request, job.start())
    if body.stream:
        return EventStream(job.chunks(streams), streams)
    await while_connected(request, collect(streams))
    return JsonResponse(job.answer(streams))


class _Job:
    """Makes the answer to one request."""

    def __init__(self, service: Service, body: CompletionRequest) -> None:
        self._service, self._body = service, body
        service.check_model(body.model)
        body.check(COMPLETION_UNBUILT)
        self._n = body.n or 1
        if body.echo and body.logprobs is not None and body.stream:
            raise ApiError(400, "echo with logprobs cannot be streamed; leave one of echo, "
                           "logprobs and stream out", param="echo")
        self._echo_only = echoes_only(body.given)
        self._params = completion_params(body.given, service.defaults)
        self._id = f"cmpl-{secrets.token_hex(12)}"

    async def start(self) -> list[Stream]:
        """Encode the prompts and submit them."""
        body, service = self._body, self._service
        prompts = _prompts(body.prompt)
        if not 1 <= len(prompts) <= MOST_PROMPTS:
            raise ApiError(400, f"prompt has {len(prompts)} prompts, expected 1 to {MOST_PROMPTS}",
                           param="prompt")
        special = body.add_special_tokens is False
        encoded: list[tuple[list[int], str | None]] = []
        for prompt in prompts:
            if isinstance(prompt, str):
                encoded.append((await service.encode(prompt, special=special), prompt))
            elif not prompt:
                raise ApiError(400, "prompt has an empty list of ids, expected at least one id",
                               param="prompt")
            else:
                encoded.append((prompt, None))
            service.max_tokens(None if self._echo_only else self._params.max_tokens,
                               len(encoded[-1][0]))
        return await service.submit(encoded, self._params, self._id, body.cache_salt)

    def _head(self) -> dict[str, Any]:
        return {"id": self._id, "object": "text_completion", "created": int(time.time()),
                "model": self._service.name, "system_fingerprint": self._service.fingerprint}

    def _echoed(self, stream: Stream) -> str:
        output = stream.output
        if not self._body.echo:
            return ""
        return output.prompt if output.prompt is not None else self._service.tokenizer.decode(
            output.prompt_token_ids)

    def answer(self, streams: list[Stream]) -> dict[str, Any]:
        """Return the whole answer."""
        return completion_answer(self._body.given, [s.output for s in streams], self._head(),
                                 self._service.engine.texts, self._service.tokenizer.decode)

    async def chunks(self, streams: list[Stream]) -> AsyncIterator[dict[str, Any] | bytes]:
        """Yield the parts of a streamed answer; those in the middle of a text as events."""
        head, body = self._head(), self._body
        news = {(s, one.index): News() for s in streams for one in s.output.outputs}
        offsets: dict[tuple[Stream, int], int] = {}
        begun, frames = set[tuple[Stream, int]](), dict[tuple[Stream, int], Frame]()
        plain = not (body.return_token_ids or body.continuous_usage)
        async for stream in changes(streams):
            for one in stream.output.outputs:
                key = stream, one.index
                text, tokens, ended = news[key].take(one)
                if not (text or tokens.start < tokens.stop or ended):
                    continue
                if key in frames and not ended:
                    yield frames[key].event(text)
                    continue
                ids = one.token_ids[tokens]
                logprobs = None if one.logprobs is None else completion_logprobs(
                    ids, one.logprobs[tokens], body.logprobs or 0, self._service.engine.texts,
                    offsets.get(key, 0))
                if logprobs is not None:
                    offsets[key] = offsets.get(key, 0) + sum(map(len, logprobs["tokens"]))
                if key not in begun:
                    text = self._echoed(stream) + text
                choice = {"index": streams.index(stream) * self._n + one.index, "text": text,
                          "logprobs": logprobs, "finish_reason": one.finish_reason,
                          "stop_reason": one.stop_reason}
                if body.return_token_ids:
                    choice |= {"token_ids": ids, **({} if key in begun else {
                        "prompt_token_ids": stream.output.prompt_token_ids})}
                begun.add(key)
                chunk = {**head, "choices": [choice]}
                if body.include_usage:
                    chunk["usage"] = (usage([s.output for s in streams])
                                      if body.continuous_usage else None)
                yield chunk
                if plain and logprobs is None and not ended:
                    frames[key] = Frame({**chunk, "choices": [{**choice, "text": ""}]}, "text")
        if body.include_usage:
            yield {**head, "choices": [], "usage": usage([s.output for s in streams])}


def _prompts(prompt: object) -> list[str | list[int]]:
    """Return a list of prompts; a text, or a list of integers, is one."""
    if isinstance(prompt, str):
        return [prompt]
    if isinstance(prompt, list):
        if prompt and all(isinstance(i, int) for i in prompt):
            return [prompt]
        return prompt
    raise OptionError(f"prompt is {prompt!r}, expected texts or lists of token ids")
