"""Answers /v1/completions."""

from __future__ import annotations

import secrets
import time
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from core.errors import OptionError
from models.serving.http.errors import ApiError, JsonResponse
from models.serving.http.logprobs import completion_logprobs
from models.serving.http.respond import Chunk, EventStream, Frame, News, collect, while_connected
from models.serving.http.schema import CompletionRequest
from models.serving.http.service import Service
from models.serving.link.stream import Stream
from models.serving.openai.answers import completion_answer, usage
from models.serving.openai.body import COMPLETION_UNBUILT, completion_params, echoes_only
from models.serving.request import CompletionOutput

MOST_PROMPTS = 2048  # of one request


async def complete(service: Service, body: CompletionRequest, request: Request) -> Response:
    """Answer a request, whole or as a stream."""
    job = _Job(service, body)
    streams = await while_connected(request, job.start())
    if body.stream:
        return EventStream(_Parts(job, streams), streams)
    await while_connected(request, collect(streams))
    return JsonResponse(job.answer(streams))


class _Job:
    """Makes the answer to one request."""

    def __init__(self, service: Service, body: CompletionRequest) -> None:
        self._service, self.body, self.texts = service, body, service.engine.texts
        service.check_model(body.model)
        body.check(COMPLETION_UNBUILT)
        self.n = body.n or 1
        if body.echo and body.logprobs is not None and body.stream:
            raise ApiError(400, "echo with logprobs cannot be streamed; leave one of echo, "
                           "logprobs and stream out", param="echo")
        self._echo_only = echoes_only(body.given)
        self._params = completion_params(body.given, service.defaults)
        self._id = f"cmpl-{secrets.token_hex(12)}"

    async def start(self) -> list[Stream]:
        """Encode the prompts and submit them."""
        body, service = self.body, self._service
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

    def head(self) -> dict[str, Any]:
        return {"id": self._id, "object": "text_completion", "created": int(time.time()),
                "model": self._service.name, "system_fingerprint": self._service.fingerprint}

    def echoed(self, stream: Stream) -> str:
        output = stream.output
        if not self.body.echo:
            return ""
        return output.prompt if output.prompt is not None else self._service.tokenizer.decode(
            output.prompt_token_ids)

    def answer(self, streams: list[Stream]) -> dict[str, Any]:
        """Return the whole answer."""
        return completion_answer(self.body.given, [s.output for s in streams], self.head(),
                                 self.texts, self._service.tokenizer.decode)


class _Parts:
    """Makes the parts of a streamed answer; those in the middle of a text as events."""

    def __init__(self, job: _Job, streams: list[Stream]) -> None:
        self._job, self._streams, self._head = job, streams, job.head()
        self._news = {(s, one.index): News() for s in streams for one in s.output.outputs}
        self._offsets = dict.fromkeys(self._news, 0)
        self._begun = set[tuple[Stream, int]]()
        self._frames: dict[tuple[Stream, int], Frame] = {}

    def begin(self) -> list[Chunk]:
        return []

    def more(self, stream: Stream) -> list[Chunk]:
        found = (self._chunk(stream, one) for one in stream.output.outputs)
        return [chunk for chunk in found if chunk is not None]

    def end(self) -> list[Chunk]:
        return [{**self._head, "choices": [], "usage": self._usage()}] if (
            self._job.body.include_usage) else []

    def _chunk(self, stream: Stream, one: CompletionOutput) -> Chunk | None:
        key, body = (stream, one.index), self._job.body
        text, tokens, ended = self._news[key].take(one)
        if not (text or tokens.start < tokens.stop or ended):
            return None
        if key in self._frames and not ended:
            return self._frames[key].event(text)
        ids = one.token_ids[tokens]
        logprobs = None if one.logprobs is None else completion_logprobs(
            ids, one.logprobs[tokens], body.logprobs or 0, self._job.texts, self._offsets[key])
        if logprobs is not None:
            self._offsets[key] += sum(map(len, logprobs["tokens"]))
        begun = key in self._begun
        self._begun.add(key)
        choice = {"index": self._streams.index(stream) * self._job.n + one.index,
                  "text": text if begun else self._job.echoed(stream) + text,
                  "logprobs": logprobs, "finish_reason": one.finish_reason,
                  "stop_reason": one.stop_reason}
        if body.return_token_ids:
            choice |= {"token_ids": ids, **({} if begun else {
                "prompt_token_ids": stream.output.prompt_token_ids})}
        chunk = {**self._head, "choices": [choice]}
        if body.include_usage:
            chunk["usage"] = self._usage() if body.continuous_usage else None
        if not (ended or logprobs or body.return_token_ids or body.continuous_usage):
            self._frames[key] = Frame({**chunk, "choices": [{**choice, "text": ""}]}, "text")
        return chunk

    def _usage(self) -> dict[str, Any]:
        return usage([s.output for s in self._streams])


def _prompts(prompt: object) -> list[str | list[int]]:
    """Return a list of prompts; a text, or a list of integers, is one."""
    if isinstance(prompt, str):
        return [prompt]
    if isinstance(prompt, list):
        if prompt and all(isinstance(i, int) for i in prompt):
            return [prompt]
        return prompt
    raise OptionError(f"prompt is {prompt!r}, expected texts or lists of token ids")
