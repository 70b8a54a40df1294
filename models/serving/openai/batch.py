"""Runs the lines of an OpenAI batch file through an engine."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from core.errors import InputError, QueueFullError
from core.reading import shown
from models.serving.conversation import ConversationEncoder
from models.serving.engine import Engine
from models.serving.link.token_text import TokenTexts
from models.serving.openai.answers import chat_answer, completion_answer
from models.serving.openai.batch_lines import CHAT, NONFINITE, Line, Result
from models.serving.openai.body import (
    CHAT_UNBUILT,
    COMPLETION_UNBUILT,
    chat_params,
    check_body,
    completion_params,
    echoes_only,
)
from models.serving.openai.error import BodyError
from models.serving.openai.prompts import (
    Encoded,
    chat_prompt,
    check_texts,
    completion_prompts,
)
from models.serving.params import SamplingParams
from models.serving.request import RequestOutput


@dataclass
class Job:
    """Holds a line that is computed, with the outputs of its prompts that are complete."""

    line: Line
    prompts: list[Encoded]
    params: SamplingParams
    outputs: dict[int, RequestOutput] = field(default_factory=dict)


class BatchRunner:
    """Turns lines into results, in the order in which they are complete.

    name      the model's, which a body may name
    encoder   encodes conversations, None for a base model
    defaults  fields of SamplingParams where a body says nothing; their `stop` always holds
    """

    def __init__(self, engine: Engine, name: str, encoder: ConversationEncoder | None,
                 defaults: Mapping[str, Any]) -> None:
        self._engine, self._name = engine, name
        self._encoder, self._defaults = encoder, defaults
        self._texts = TokenTexts(engine.tokenizer)
        self._jobs: dict[str, tuple[Job, int]] = {}  # by request: the line and which of its prompts
        self._most = 2 * engine.scheduler.max_num_seqs  # requests beyond them would only wait

    def run(self, lines: Iterable[tuple[int, bytes]], done: Callable[[Line], bool],
            ) -> Generator[Result | None, None, None]:
        """Yield the result of each line, given with its number, or None for one that is `done`. The
        result of a bad line is an error.

        Raises as `Engine.step`. Requests that run are ended then, and when this is closed.
        """
        seen = set[str]()
        try:
            for number, data in lines:
                line, job = Line(number), None
                try:
                    line.read(data, seen)
                    if not done(line):
                        job = self._prepare(line)
                except InputError as error:
                    yield None if done(line) else line.failed(error)
                    continue
                if job is None:
                    yield None
                    continue
                while len(self._jobs) >= self._most:
                    yield from self._step()
                while (refused := self._submit(job)) is not None:
                    if isinstance(refused, InputError) or not self._jobs:
                        yield line.failed(refused)
                        break
                    yield from self._step()  # until the queue has places
            while self._jobs:
                yield from self._step()
        finally:
            for name in self._jobs:
                self._engine.abort_request(name)
            self._jobs.clear()

    def _prepare(self, line: Line) -> Job:
        engine, body = self._engine, line.body
        check_body(body, CHAT_UNBUILT if line.url == CHAT else COMPLETION_UNBUILT)
        if (model := body.get("model")) is not None and model != self._name:
            raise BodyError(f"model is {shown(model)}, and this run has {self._name!r}; "
                            "--served-model-name gives it another name", "model", "model_not_found")
        if body.get("stream"):
            raise BodyError("stream is true, and a batch has no streams; leave it out", "stream",
                            "unsupported_parameter")
        if line.url == CHAT:
            params = chat_params(body, self._defaults, None if self._encoder is None
                                 else self._encoder.template)
            prompts = [chat_prompt(body, self._encoder)]
        else:
            params = completion_params(body, self._defaults)
            prompts = completion_prompts(body, engine.tokenizer)
        check_texts(len(prompts), params.n, engine.scheduler.max_waiting)
        limit = engine.scheduler.max_model_len
        new = 0 if echoes_only(body) else params.max_tokens or 0
        if (longest := max(len(ids) for ids, _ in prompts)) + new > limit:
            raise BodyError(
                f"the prompt has {longest} tokens and {new} are to be generated; the context "
                f"holds {limit}. Shorten the prompt, lower max_tokens, or raise --max-context",
                "max_tokens", "context_length_exceeded")
        return Job(line, prompts, params)

    def _submit(self, job: Job) -> InputError | QueueFullError | None:
        """Queue the requests of a line. Returns why none of them is queued."""
        names = list[str]()
        try:
            for ids, _ in job.prompts:
                names.append(f"batch-{secrets.token_hex(12)}")
                self._engine.add_request(names[-1], ids, job.params, streams=False,
                                         salt=job.line.body.get("cache_salt") or "")
        except (InputError, QueueFullError) as error:
            for name in names:
                self._engine.abort_request(name)
            return error
        self._jobs.update((name, (job, i)) for i, name in enumerate(names))
        return None

    def _step(self) -> Iterator[Result]:
        for output in self._engine.step():
            if output.finished and output.request_id in self._jobs:
                job, i = self._jobs.pop(output.request_id)
                output.prompt = job.prompts[i][1]
                job.outputs[i] = output
                if len(job.outputs) == len(job.prompts):
                    yield self._result(job)

    def _result(self, job: Job) -> Result:
        line, outputs = job.line, [job.outputs[i] for i in range(len(job.prompts))]
        for output in outputs:
            for one in output.outputs:
                if one.finish_reason == "refused":
                    return line.failed(BodyError(str(one.stop_reason), code="grammar"))
            if problem := _nonfinite(output):
                return line.failed(BodyError(problem, code=NONFINITE))
        kind = "chatcmpl" if line.url == CHAT else "cmpl"
        head = {"id": f"{kind}-{secrets.token_hex(12)}", "created": int(time.time()),
                "model": self._name}
        encoder = self._encoder
        if line.url == CHAT:
            return line.succeeded(chat_answer(line.body, outputs[0], head, self._texts,
                                              None if encoder is None else encoder.template))
        return line.succeeded(completion_answer(line.body, outputs, head, self._texts,
                                                self._engine.tokenizer.decode))


def _nonfinite(output: RequestOutput) -> str | None:
    """Say what is wrong with an output whose logits were not finite."""
    for one in output.outputs:
        if one.finish_reason == "error":
            return str(one.stop_reason)
    entries = [*(output.prompt_logprobs or ()), *(e for o in output.outputs
                                                  for e in o.logprobs or ())]
    if any(math.isnan(found.logprob) for entry in entries if entry for found in entry.values()):
        return "a log-probability is NaN; --check-finite names the first kernel that makes one"
    return None
