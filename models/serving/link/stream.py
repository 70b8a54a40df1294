"""Turns what comes from the engine's process into the output of a request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence

from core.errors import CheckError, OptionError
from models.serving.link.messages import Delta
from models.serving.link.token_text import TokenTexts
from models.serving.params import SamplingParams
from models.serving.request import CompletionOutput, Logprob, Logprobs, RequestOutput
from models.serving.text import OutputText
from models.tokenizers.base import Tokenizer


class Stream:
    """Gives the outputs of a request as they grow: `async for output in stream`.

    Each output holds all that has come so far, so one that is read late lacks nothing. Close the
    stream to end the request.

    output    what there is
    error     why the request failed, else None
    changed   is set with every change; several streams may share it
    key       names the request between the two processes
    started   when the request came, in seconds of `time.monotonic`
    last      when the last token of each text came, by its index
    """

    def __init__(self, request_id: str, prompt: str | None, ids: Sequence[int],
                 params: Sequence[SamplingParams], tokenizer: Tokenizer, texts: TokenTexts,
                 ended: Callable[[Stream], None], changed: asyncio.Event | None = None,
                 eos_ids: Collection[int] = ()) -> None:
        self.accepted = asyncio.get_running_loop().create_future()
        self.changed = changed or asyncio.Event()
        self.error: Exception | None = None
        self.started, self.last, self.key = time.monotonic(), dict[int, float](), ""
        self._news, self._ended, self._words = False, ended, texts
        self._texts = [OutputText(tokenizer, ids, one, {
            *(() if one.ignore_eos else eos_ids), *(one.stop_token_ids or ())}) for one in params]
        self.output = RequestOutput(request_id, prompt, list(ids), [
            CompletionOutput(i, logprobs=None if one.logprobs is None else [])
            for i, one in enumerate(params)])
        if params[0].prompt_logprobs is not None:
            self.output.prompt_logprobs = [None]

    def __aiter__(self) -> AsyncIterator[RequestOutput]:
        return self._outputs()

    async def _outputs(self) -> AsyncIterator[RequestOutput]:
        try:
            async for _ in changes([self]):
                yield self.output
        finally:
            self.close()

    def news(self) -> bool:
        """Tell whether the output has changed since the last call. Raises the request's error."""
        if self.error is not None:
            raise self.error
        news, self._news = self._news, False
        return news

    def close(self) -> None:
        """End the request, if it runs."""
        self._ended(self)

    # called by AsyncEngine

    def fail(self, error: Exception) -> None:
        """End the stream with an error."""
        if self.output.finished or self.error is not None:
            return
        self.error = error
        if not self.accepted.done():
            self.accepted.set_exception(error)
            self.accepted.exception()  # seen, even if nobody waits for it any more
        self.changed.set()

    def accept(self) -> None:
        """Note that the engine has taken the request."""
        if not self.accepted.done():
            self.accepted.set_result(None)

    def take(self, index: int, delta: Delta) -> bool:
        """Add what a step gave. Returns whether the text has ended before the engine knows it."""
        one, text = self.output.outputs[index], self._texts[index]
        if one.finish_reason is not None:
            return False
        if delta.finish_reason in ("error", "refused"):
            kind = CheckError if delta.finish_reason == "error" else OptionError
            self.fail(kind(str(delta.stop_reason)))
            return False
        for i, token in enumerate(delta.token_ids):
            last = i == len(delta.token_ids) - 1
            text.push(token, delta.finish_reason if last else None,
                      delta.stop_reason if last else None)
            one.token_ids.append(token)
            if one.logprobs is not None and delta.logprobs is not None:
                entry = self._worded(delta.logprobs[i])
                one.logprobs.append(entry)
                one.cumulative_logprob = (one.cumulative_logprob or 0.0) + entry[token].logprob
            if text.finish_reason is not None:
                break
        one.text, one.finish_reason, one.stop_reason = (
            text.text, text.finish_reason, text.stop_reason)
        if index == 0 and delta.prompt_logprobs and self.output.prompt_logprobs is not None:
            self.output.prompt_logprobs += [self._worded(entry)
                                            for entry in delta.prompt_logprobs if entry is not None]
        if delta.cached_tokens > self.output.cached_tokens:
            self.output.cached_tokens = delta.cached_tokens
        self._news = True
        self.changed.set()
        if one.finish_reason is None:  # of a token in the middle no more is asked
            return False
        self.output.finished = all(o.finished for o in self.output.outputs)
        return delta.finish_reason is None

    def _worded(self, entry: Logprobs) -> Logprobs:
        return {token: Logprob(found.logprob, found.rank, self._words[token])
                for token, found in entry.items()}


async def changes(streams: Sequence[Stream]) -> AsyncIterator[Stream]:
    """Yield each stream when it has changed, until all are finished; they share `changed`. Raises
    the first error."""
    running = list(streams)
    while running:
        await running[0].changed.wait()
        running[0].changed.clear()
        for stream in list(running):
            if stream.news():
                if stream.output.finished:
                    running.remove(stream)
                yield stream
