"""Stands in for AsyncEngine: answers with a text that the test has written."""

import asyncio
from types import SimpleNamespace

from models.serving.link.messages import Delta, EngineFacts, EngineState, sequence_id
from models.serving.link.stream import Stream
from models.serving.link.token_text import TokenTexts


class CharTokenizer:
    """Gives each character its code point."""

    special_tokens: dict = {}  # noqa: RUF012 - it stays empty
    bos_id = eos_id = template = None
    size = base_size = 0x110000

    def encode(self, text, *, special=False):
        return [ord(c) for c in text]

    def decode(self, ids):
        return "".join(map(chr, ids))

    def token(self, i):
        return chr(i)


class ScriptedEngine:
    """Gives each request the same text, a character a step; then ends it, or fails with `error`."""

    def __init__(self, text, error=None):
        self.text, self.error = text, error
        self.tokenizer, self.state, self.trouble = CharTokenizer(), EngineState(), None
        self.texts, self.closed = TokenTexts(self.tokenizer), []
        self.facts = EngineFacts(0x110000, 4096, 4, 64, 64, 16, ("script",), {}, "0" * 12)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        pass

    async def in_thread(self, work):
        return work()

    async def submit(self, prompt, params, *, request_id, salt="", text=None, changed=None):
        texts = [params.choice(i, 1) for i in range(params.n)]
        stream = Stream(request_id, text, prompt, texts, self.tokenizer, self.texts,
                        self.closed.append, changed, {0})
        stream.task = asyncio.create_task(self._play(stream))
        return stream

    async def _play(self, stream):
        for i, character in enumerate(self.text + "\0"):  # the last one stands for a stop id
            await asyncio.sleep(0)
            last = i == len(self.text) and self.error is None
            for one in stream.output.outputs:
                stream.take(one.index, Delta(
                    sequence_id("a", one.index), [ord(character)], None, None,
                    "stop" if last else None, None, 0))
        if self.error is not None:
            await asyncio.sleep(0)
            stream.fail(self.error)


def conversations(source):
    """Return what encodes any conversation to one id; `source` is the chat template's text."""
    return SimpleNamespace(template=SimpleNamespace(choose=lambda tools=False: source),
                           encode=lambda messages, **how: [1])
