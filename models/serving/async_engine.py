"""AsyncEngine: serves requests to coroutines, by an engine in a process of its own."""

from __future__ import annotations

import asyncio
import secrets
from array import array
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from core.errors import LifetimeError
from core.isolation import TIMEOUT_S
from models.serving.engine import Engine
from models.serving.link.messages import Delta, EngineFacts, EngineState, Message
from models.serving.link.process import EngineError, EngineProcess
from models.serving.link.questions import Questions
from models.serving.link.running import Running
from models.serving.link.stream import Stream
from models.serving.link.token_text import TokenTexts
from models.serving.params import SamplingParams
from models.serving.prompt import Prompt, encode_prompt
from models.serving.request import RequestOutput
from models.tokenizers.base import Tokenizer

SILENCE = 10.0  # seconds without a sign of life after which the engine counts as lost
_LOOKS = 10  # how often it is looked for one in that time
_SHORT = 2000  # characters, or ids, that are encoded at once instead of in a thread

R = TypeVar("R")


class AsyncEngine:
    """Serve requests from one event loop. Text is encoded and decoded here, steps run there.

        engine = AsyncEngine(partial(models.load_engine, "stories-llama2"), tokenizer)
        async with engine:
            async for output in engine.generate("Once upon", SamplingParams(max_tokens=9)):
                ...

    opener     opens the engine in its process; it is pickled
    tokenizer  the model's own
    facts      what is known of the engine once it is open
    state      what it was doing at its last sign of life
    trouble    why requests cannot be served now, None where they can
    on_tokens  is called with a stream, one of its texts, and how many tokens it has got
    hung       the kernel that did not end within `step_timeout` seconds, None while all do; the
               engine's process has been ended then, and `on_hung` is called
    """

    def __init__(self, opener: Callable[[], Engine], tokenizer: Tokenizer, *,
                 step_timeout: float = TIMEOUT_S) -> None:
        self.tokenizer, self.texts = tokenizer, TokenTexts(tokenizer)
        self.state = EngineState()
        self.on_tokens: Callable[[Stream, int, int], None] = lambda stream, index, tokens: None
        self.hung: str | None = None
        self.on_hung: Callable[[], object] = lambda: None
        self._limit, self._process = step_timeout, EngineProcess(opener, step_timeout)
        self._facts: EngineFacts | None = None
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="text")
        self._running = Running()
        self._asked = Questions()
        self.trouble: str | None = "the engine has not been started"
        self._ended, self._silent = False, 0

    @property
    def facts(self) -> EngineFacts:
        """Wait until the engine is open, and return what is known of it. Raises what kept it from
        that, or EngineError."""
        if self._facts is None:
            self._facts = self._process.ready()
        return self._facts

    async def __aenter__(self) -> AsyncEngine:
        try:
            await asyncio.to_thread(lambda: self.facts)
        except BaseException:
            self._process.close()
            raise
        loop = self._loop = asyncio.get_running_loop()

        def hand(call: Callable[..., None], *arguments: object) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(call, *arguments)
        self.trouble = None
        self._process.listen(lambda messages: hand(self._take, messages),
                             lambda reason: hand(self.give_up, reason))
        self._watcher = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._watcher.cancel()
        self._fail(LifetimeError("the engine is closed"))
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """End the engine's process; open streams fail."""
        self._process.close()
        self._pool.shutdown(cancel_futures=True)

    # requests

    async def generate(self, prompt: Prompt, params: SamplingParams | None = None, *,
                       request_id: str | None = None, salt: str = "",
                       ) -> AsyncIterator[RequestOutput]:
        """Yield the request's output as it grows; closing or cancelling ends the request. Raises
        as `submit`, and the error that ends the request later."""
        stream = await self.submit(prompt, params, request_id=request_id, salt=salt)
        try:
            async for output in stream:
                yield output
        finally:
            stream.close()

    async def submit(self, prompt: Prompt, params: SamplingParams | None = None, *,
                     request_id: str | None = None, salt: str = "", text: str | None = None,
                     changed: asyncio.Event | None = None) -> Stream:
        """Return the stream of a request that the engine has accepted. `text`: the prompt's, where
        ids are given.

        Raises as Engine.add_request, EngineError where no engine runs.
        """
        self._alive()
        params = params if params is not None else SamplingParams()
        name = request_id if request_id is not None else secrets.token_hex(12)
        self._running.check(name)
        size, tokenizer = self.facts.vocab_size, self.tokenizer
        params.check_vocabulary(size)
        encode = partial(encode_prompt, prompt, tokenizer, size)
        ids = encode() if len(prompt) <= _SHORT else await self.in_thread(encode)
        self._alive()
        seed = secrets.randbits(63)
        texts = [params.choice(i, seed) for i in range(params.n)]
        stream = Stream(name, prompt if isinstance(prompt, str) else text, ids, texts, tokenizer,
                        self.texts, self._end, changed, self.facts.eos_ids)
        key = self._running.add(stream)
        self._process.send("add", key, array("i", ids).tobytes(),
                           [_without_text(one) for one in texts], salt)
        try:
            await stream.accepted
        except BaseException:
            stream.close()
            raise
        return stream

    async def in_thread(self, work: Callable[[], R]) -> R:
        """Run work on text that may take long, such as encoding, beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def give_up(self, reason: str, *, hung: bool = False) -> None:
        """End every stream and question with an EngineError, and take no more."""
        if self._ended:
            return
        self._ended, self.trouble = True, f"{reason}; start the server again"
        self._fail(EngineError(self.trouble))
        if hung:
            self.hung = reason
            self.on_hung()

    # looking

    @property
    def pid(self) -> int | None:
        """Return the id of the engine's process."""
        return self._process.pid

    @property
    def open_streams(self) -> int:
        return len(self._running)

    async def ask(self, question: str) -> Any:  # noqa: ANN401 - by the question
        """Return the engine's answer to one of QUESTIONS. Raises the engine's error."""
        self._alive()
        number, answer = self._asked.add()
        self._process.send("ask", number, question)
        return await answer

    # inside

    def _alive(self) -> None:
        if self.trouble is not None:
            raise EngineError(self.trouble)

    def _end(self, stream: Stream) -> None:
        """Forget a stream, and abort what runs of it."""
        if names := self._running.forget(stream):
            self._process.send("abort", names)

    def _take(self, messages: list[Message]) -> None:
        """Hand on what has come from the engine's process."""
        self._silent = 0
        if not self._ended:
            self.trouble = None
        for kind, *rest in messages:
            if kind == "next":
                for name, token in zip(*rest, strict=True):
                    self._tokens(Delta(name, [token]))
            elif kind == "tokens":
                self._tokens(rest[0])
            elif kind == "beat":
                self.state = rest[0]
            elif kind == "answer":
                self._asked.answer(*rest)
            elif kind == "error":
                self._fail(rest[0])
            elif kind == "hung":
                self.give_up(rest[0], hung=True)
            elif (stream := self._running.stream(rest[0])) is not None:
                if kind == "added":
                    stream.accept()
                else:
                    self._running.forget(stream)
                    stream.fail(rest[1])

    def _tokens(self, delta: Delta) -> None:
        found = self._running.sequence(delta.sequence_id)
        if found is None:
            return  # its client has left meanwhile
        stream, index = found
        if early := stream.take(index, delta):
            self._process.send("abort", [delta.sequence_id])
        if early or delta.finish_reason is not None:
            self._running.end(delta.sequence_id)
            if stream.output.finished:
                self._running.forget(stream)
        self.on_tokens(stream, index, len(delta.token_ids))

    def _fail(self, error: Exception) -> None:
        """End every stream, and every question, with an error."""
        for stream in self._running:
            self._end(stream)
            stream.fail(error)
        self._asked.fail(error)

    async def _watch(self) -> None:
        while not self._ended:
            await asyncio.sleep(SILENCE / _LOOKS)
            self._silent += 1  # no clock: this process may have been stopped too
            if self._silent > _LOOKS and self.trouble is None:
                self.trouble = (f"the engine's process (pid {self.pid}) has said nothing for "
                                 f"{SILENCE:.0f} seconds")
                self._fail(EngineError(self.trouble))
            if self._silent > _LOOKS * max(1, self._limit / SILENCE):
                self.give_up(self._process.stop(), hung=True)


def _without_text(params: SamplingParams) -> SamplingParams:
    """Return the parameters for the engine's process, which makes no text to stop in."""
    return params.changed(stop=())
