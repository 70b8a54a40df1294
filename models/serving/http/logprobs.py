"""Writes log-probabilities as OpenAI does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from models.serving.link.token_text import TokenTexts
from models.serving.request import Logprobs

LEAST = -9999.0  # stands for minus infinity, which JSON lacks


def completion_logprobs(ids: Sequence[int], entries: Sequence[Logprobs | None], top: int,
                        texts: TokenTexts, offset: int = 0) -> dict[str, Any]:
    """Return the object of /v1/completions: lists with an element for each token. `top` likeliest
    tokens, and the token itself, are listed for each; none for a prompt's first one."""
    tokens = [texts[i] for i in ids]
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token)
    return {"tokens": tokens, "text_offset": offsets,
            "token_logprobs": [None if entry is None else _number(entry[i].logprob)
                               for i, entry in zip(ids, entries, strict=True)],
            "top_logprobs": None if not top else [
                None if entry is None else {
                    texts[i]: _number(found.logprob) for i, found in entry.items()
                    if found.rank is None or found.rank <= top or i == own}
                for own, entry in zip(ids, entries, strict=True)]}


def chat_logprobs(ids: Sequence[int], entries: Sequence[Logprobs], top: int,
                  texts: TokenTexts) -> dict[str, Any]:
    """Return the object of /v1/chat/completions."""
    def one(i: int, logprob: float) -> dict[str, Any]:
        return {"token": texts[i], "logprob": _number(logprob),
                "bytes": list(texts[i].encode("utf-8", "surrogatepass"))}
    content = []
    for own, entry in zip(ids, entries, strict=True):
        likeliest = sorted((found.rank or 0, i) for i, found in entry.items())
        content.append({**one(own, entry[own].logprob), "top_logprobs": [
            one(i, entry[i].logprob) for rank, i in likeliest if rank <= top]})
    return {"content": content, "refusal": None}


def prompt_entries(entries: Sequence[Logprobs | None] | None) -> list[Any] | None:
    """Return a prompt's log-probabilities by token id, as vLLM does."""
    if entries is None:
        return None
    return [None if entry is None else {
        str(i): {"logprob": _number(found.logprob), "rank": found.rank,
                 "decoded_token": found.decoded_token} for i, found in entry.items()}
        for entry in entries]


def _number(logprob: float) -> float:
    return max(logprob, LEAST)
