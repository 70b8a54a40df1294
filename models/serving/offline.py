"""Generates for a list of prompts with an engine that others may use meanwhile."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from core.errors import CheckError, InputError, LifetimeError, OptionError
from models.serving.params import SamplingParams
from models.serving.prompt import Prompt, list_prompts
from models.serving.request import RequestOutput

if TYPE_CHECKING:
    from models.serving.engine import Engine


def generate(engine: Engine, prompts: Prompt | Sequence[Prompt],
             params: SamplingParams | Sequence[SamplingParams] | None,
             progress: Callable[[int, int], object]) -> list[RequestOutput]:
    """Do what `Engine.generate` says."""
    batch = list_prompts(prompts)
    each = SamplingParams.of_each(params, len(batch))
    prefix = secrets.token_hex(8)
    names = {f"{prefix}-{i}": i for i in range(len(batch))}
    news, done = dict[str, RequestOutput](), dict[str, RequestOutput]()
    try:
        for name, prompt, one in zip(names, batch, each, strict=True):
            with _numbered(names[name], len(names)):
                engine.queue(name, prompt, one, streams=False, news=news, bounded=False)
        while len(done) < len(names):
            engine.advance()
            found = [name for name in list(news) if news[name].finished]  # others change it too
            for name in found:
                done[name] = news.pop(name)
                _check(done[name], names[name])
                progress(len(done), len(names))
    finally:
        for name in names:
            engine.abort_request(name)
    return [done[name] for name in names]


@contextmanager
def _numbered(number: int, count: int) -> Iterator[None]:
    """Let an error say which of several prompts it is about."""
    try:
        yield
    except InputError as error:
        if count == 1:
            raise
        raise type(error)(f"prompt {number}: {error}") from None


def _check(output: RequestOutput, number: int) -> None:
    """Raise CheckError or LifetimeError for an output that ended before its time."""
    for one in output.outputs:
        if one.finish_reason == "error":
            raise CheckError(f"prompt {number}: {one.stop_reason}")
        if one.finish_reason == "refused":
            raise OptionError(f"prompt {number}: {one.stop_reason}")
        if one.finish_reason == "abort":
            raise LifetimeError(f"prompt {number} was ended, as a step failed in another thread; "
                                "generate again")

