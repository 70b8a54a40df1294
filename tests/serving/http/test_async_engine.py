"""Tests AsyncEngine: an engine in a process of its own, and every way in which it can be lost."""

import asyncio
import os
import signal
import time
from functools import partial

import breaking_engine
import pytest

import models
from core.errors import KernelyardError, NoKernelError, OptionError, PromptError
from models.serving import async_engine
from models.serving.async_engine import AsyncEngine
from models.serving.link.process import EngineError
from models.serving.link.worker import portable
from models.serving.params import SamplingParams

PROMPT = "Once upon a time"
LONG = SamplingParams(max_tokens=400, temperature=0, ignore_eos=True)


async def last(outputs):
    """Return the last output, of a stream that must have one."""
    found = None
    async for output in outputs:
        found = output
    return found


async def until(condition, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.05)


def test_everything_of_a_healthy_engine_and_a_silent_one(story, monkeypatch):
    """Runs in one engine, which takes seconds to start."""
    monkeypatch.setattr(async_engine, "SILENCE", 2.0)
    opener = partial(models.load_engine, "stories-llama2", max_num_seqs=4, kv_blocks=128)
    expected = story.generate(PROMPT, max_new_tokens=30).run()

    async def run():
        async with AsyncEngine(opener, story.tokenizer) as engine:
            greedy = SamplingParams(max_tokens=30, temperature=0)
            output = await last(engine.generate(PROMPT, greedy))
            assert output.outputs[0].text == expected.text and output.prompt == PROMPT
            assert output.outputs[0].token_ids == expected.tokens
            assert output.outputs[0].finish_reason == "length"

            twice = await last(engine.generate(output.prompt_token_ids, SamplingParams(
                max_tokens=8, n=2, seed=1, logprobs=1, prompt_logprobs=0)))
            assert [one.index for one in twice.outputs] == [0, 1] and twice.prompt is None
            assert len(twice.prompt_logprobs) == len(twice.prompt_token_ids)
            assert all(len(one.logprobs) == 8 for one in twice.outputs)

            stop = expected.text[20:22]
            stopped = (await last(engine.generate(PROMPT, SamplingParams(
                max_tokens=400, temperature=0, stop=stop)))).outputs[0]
            assert stopped.text == expected.text[:expected.text.index(stop)]
            assert (stopped.finish_reason, stopped.stop_reason) == ("stop", stop)
            await until(lambda: engine.state.running == 0)

            with pytest.raises(PromptError, match="empty"):
                await last(engine.generate("", greedy))
            with pytest.raises(PromptError, match="600 tokens"):
                await last(engine.generate([5] * 600, greedy))
            with pytest.raises(OptionError, match="vocabulary"):
                await last(engine.generate(PROMPT, SamplingParams(logit_bias={99999: 1})))

            generator = engine.generate(PROMPT, LONG, request_id="a")
            await anext(generator)
            with pytest.raises(OptionError, match="'a' is running already"):
                await anext(engine.generate(PROMPT, LONG, request_id="a"))
            await generator.aclose()
            task = asyncio.create_task(last(engine.generate(PROMPT, LONG, request_id="a")))
            await until(lambda: engine.open_streams)
            task.cancel()
            await until(lambda: not engine.open_streams)
            await until(lambda: engine.state.running == engine.state.used_blocks == 0)
            assert await engine.ask("check") is None
            assert (await engine.ask("ledger"))["hash"]

            generator = engine.generate(PROMPT, LONG)
            await anext(generator)
            os.kill(engine.pid, signal.SIGSTOP)
            with pytest.raises(EngineError, match="said nothing for 2 seconds"):
                await last(generator)
            assert "nothing" in engine.trouble
            with pytest.raises(EngineError, match="nothing"):
                await engine.submit(PROMPT, greedy)
            os.kill(engine.pid, signal.SIGCONT)
            await until(lambda: engine.trouble is None)
            again = await last(engine.generate(PROMPT, greedy))
            assert again.outputs[0].text == expected.text
    asyncio.run(run())


def test_a_failed_step_ends_every_request_and_no_more(story):
    async def run():
        async with AsyncEngine(breaking_engine.break_once, story.tokenizer) as engine:
            one = asyncio.create_task(last(engine.generate(PROMPT, LONG)))
            two = asyncio.create_task(last(engine.generate("The dog", LONG)))
            for task in (one, two):
                with pytest.raises(NoKernelError, match="of this test"):
                    await task
            assert engine.trouble is None and engine.open_streams == 0
            output = await last(engine.generate(PROMPT, SamplingParams(max_tokens=5)))
            assert len(output.outputs[0].token_ids) == 5
    asyncio.run(run())


@pytest.mark.parametrize(("opener", "kind", "message"), [
    (breaking_engine.refuse, OptionError, "this model cannot be loaded"),
    (breaking_engine.die, EngineError, "ended with code 7 while it loaded the model")],
    ids=["refused", "dead"])
def test_what_keeps_an_engine_from_opening(story, opener, kind, message):
    async def run():
        with pytest.raises(kind, match=message):
            async with AsyncEngine(opener, story.tokenizer):
                raise AssertionError("it has opened")
    asyncio.run(run())


def test_errors_travel(capsys):
    class Odd(KernelyardError):
        def __init__(self, a, b):
            super().__init__(f"{a} and {b}")
    assert str(portable(Odd(1, 2))) == "1 and 2"
    assert "ZeroDivisionError: by zero" in str(portable(ZeroDivisionError("by zero")))
    assert "ZeroDivisionError" in capsys.readouterr().err
