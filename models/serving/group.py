"""Collects what comes out of one request: its n texts, tokens and log-probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from core.errors import CheckError
from core.tensor.tensor import Array
from models.serving.request import (
    CompletionOutput,
    Logprob,
    Logprobs,
    Request,
    RequestOutput,
)
from models.serving.text import OutputText
from models.tokenizers.base import Tokenizer
from models.tokenizers.streaming import IncrementalDecoder


class Group:
    """Holds the n sequences of a request and its output, which grows with each token.

    streams  whether text is wanted with each token; else it is decoded once, at the end, unless
             stop strings have to be looked for
    news     where the output goes, by the request's id, when it has changed
    """

    def __init__(self, request_id: str, prompt: str | None, requests: list[Request],
                 tokenizer: Tokenizer, *, streams: bool, news: dict[str, RequestOutput]) -> None:
        self.news = news
        self.requests, self._tokenizer = requests, tokenizer
        params, ids = requests[0].params, requests[0].ids
        self._texts = [OutputText(tokenizer, ids, r.params, r.stop_ids)
                       if streams or params.stop else None for r in requests]
        self.output = RequestOutput(request_id, prompt, list(ids), [
            CompletionOutput(i, logprobs=None if params.logprobs is None else [])
            for i in range(len(requests))])
        if params.prompt_logprobs is not None:
            self.output.prompt_logprobs = [None]

    def push(self, request: Request, token: int) -> str | None:
        """Add a token that the scheduler took. Returns why the request is to be ended, if the
        scheduler does not know it yet: a stop string."""
        output, text = self.output.outputs[request.index], self._texts[request.index]
        output.token_ids.append(token)
        reason, detail = request.finish_reason, request.stop_reason
        if text is None and reason is None and len(output.token_ids) > 1:
            return None
        if text is not None:
            text.push(token, reason, detail)
            output.text, reason, detail = text.text, text.finish_reason, text.stop_reason
        elif reason is not None:
            left_out = (reason == "stop" and token in request.stop_ids
                        and not request.params.include_stop_str_in_output)
            output.text = self._whole(output.token_ids[:-1] if left_out else output.token_ids)
        output.finish_reason, output.stop_reason = reason, detail
        self.output.cached_tokens = self.requests[0].cached_tokens
        if reason is None:
            return None
        self.output.finished = all(o.finished for o in self.output.outputs)
        return reason if request.finish_reason is None else None

    def end_all(self, reason: str) -> None:
        """End early what has not ended, with what there is of its text."""
        for output, text in zip(self.output.outputs, self._texts, strict=True):
            if output.finished:
                continue
            if text is not None:
                text.abort()
                output.text = text.text
            else:
                output.text = self._whole(output.token_ids)
            output.finish_reason = reason
        self.output.finished = True

    def _whole(self, ids: list[int]) -> str:
        """Decode all tokens after the end of the prompt, on which spaces depend."""
        decoder = IncrementalDecoder(self._tokenizer.decode, self.output.prompt_token_ids)
        return decoder.flush(ids)

    # log-probabilities

    def add_logprobs(self, request: Request, row: int, token: int,
                     results: Mapping[str, Array]) -> None:
        """Add those of a sampled token, which row `row` of a step gave."""
        output, n = self.output.outputs[request.index], request.params.logprobs
        if n is not None and output.logprobs is not None:
            entry = self._logprobs(token, row, n, results)
            output.logprobs.append(entry)
            output.cumulative_logprob = (output.cumulative_logprob or 0.0) + entry[token].logprob

    def add_prompt_logprobs(self, row: int, token: int, results: Mapping[str, Array]) -> None:
        """Add those of the prompt's next token."""
        n, known = self.requests[0].params.prompt_logprobs, self.output.prompt_logprobs
        if n is not None and known is not None and len(known) < len(self.output.prompt_token_ids):
            known.append(self._logprobs(token, row, n, results))

    def _logprobs(self, token: int, row: int, n: int, results: Mapping[str, Array]) -> Logprobs:
        entry = {token: Logprob(float(results["chosen"][row]), int(results["rank"][row]),
                                self._token_text(token))}
        for rank in range(n):
            other = int(results["top_ids"][row, rank])
            entry.setdefault(other, Logprob(float(results["top"][row, rank]), rank + 1,
                                            self._token_text(other)))
        return entry

    def _token_text(self, token: int) -> str | None:
        return self._tokenizer.decode([token]) or self._tokenizer.token(token)


def check_tokens(sampled: Sequence[int], vocab_size: int) -> None:
    """Raise CheckError for a token that the vocabulary lacks."""
    if sampled and not 0 <= min(sampled) <= max(sampled) < vocab_size:
        wrong = next(token for token in sampled if not 0 <= token < vocab_size)
        raise CheckError(f"a kernel sampled token {wrong}, expected 0 to {vocab_size - 1}; --check "
                         "reference finds the kernel")


def nonfinite(request: Request, logit: float) -> str:
    """Say which token's largest logit is not finite, and how to find out more."""
    return (f"the largest logit for the token at position {len(request.ids) - 1} is {logit}, "
            "expected a finite number; --check-finite names the first kernel that makes NaN or Inf")
