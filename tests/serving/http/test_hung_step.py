"""A kernel that never returns: the server names it, ends what runs, and ends itself with code 3."""

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
import time

import breaking_engine
import httpx
import pytest
from http_server import serving
from zoo.table import SUPPORT, install

from models.serving import async_engine
from models.serving.async_engine import AsyncEngine
from models.serving.link.process import EngineError
from models.serving.live.watch import StepWatch
from models.serving.params import SamplingParams

ZOO = ("--backend", "zoo,cpu_numpy", "--only-plugins", "zoo,cpu_numpy", "--no-fusion",
       "--step-timeout", "4")
NAMED = (r"layers\.0\.input_layernorm \(rms_norm\), zoo:rms_norm \(kernelyard-zoo 1\.0\), .*: took "
         r"over 4 s, at .*kernels\.py:\d+")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="the fault handler's signals")


def zoo(folder, kernel):
    path = os.pathsep.join(filter(None, [str(install(folder / "site")), str(SUPPORT),
                                         os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "ZOO": kernel}


def test_a_server_whose_kernel_hangs(tmp_path):
    body = {"prompt": [5], "max_tokens": 400, "temperature": 0, "ignore_eos": True, "stream": True}
    with serving(tmp_path, *ZOO, env=zoo(tmp_path, "endless_rows")) as server:
        with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=60) as answer:
            lines = answer.iter_lines()
            assert next(lines).startswith("data: ")
            whole = []
            thread = threading.Thread(target=lambda: whole.append(httpx.post(
                f"{server.url}/v1/completions", json={"prompt": [5, 6, 7, 8, 9, 10]}, timeout=60)))
            thread.start()
            *_, event, data = [line for line in lines if line]
        assert event == "event: error"
        assert re.search(NAMED, json.loads(data.removeprefix("data: "))["error"]["message"])
        health = httpx.get(f"{server.url}/health")
        assert health.status_code == 503 and re.search(NAMED, health.json()["reason"])
        thread.join(60)
        assert whole[0].status_code == 503 and re.search(NAMED, whole[0].json()["error"]["message"])
        assert server.process.wait(30) == 3
        assert re.search(f"^error: {NAMED}$", server.said, re.M), server.said
        assert "Traceback" not in server.said


def test_a_kernel_that_hangs_before_the_server_is_ready(tmp_path):
    done = subprocess.run([sys.executable, "-m", "models.serve", "--port", "0", *ZOO],
                          env=zoo(tmp_path, "endless"), capture_output=True, text=True, timeout=100)
    assert done.returncode == 3 and done.stdout == ""
    assert re.search(f"^error: {NAMED}$", done.stderr, re.M), done.stderr


def test_a_kernel_that_lets_no_thread_run(story, monkeypatch):
    """Nothing comes from the process, so it is ended from outside, and its line is told."""
    monkeypatch.setattr(async_engine, "SILENCE", 2.0)
    hung = []

    async def run():
        async with AsyncEngine(breaking_engine.hold, story.tokenizer, step_timeout=3) as engine:
            engine.on_hung = lambda: hung.append(engine.hung)
            with pytest.raises(EngineError, match="said nothing for 2 seconds"):
                async for _ in engine.generate("Once", SamplingParams(max_tokens=9)):
                    pass
            while engine.hung is None:
                await asyncio.sleep(0.05)
            assert "start the server again" in engine.trouble
    asyncio.run(run())
    assert re.search(r"said nothing for 3 seconds, at .*breaking_engine\.py:\d+$", hung[0])


def test_a_thread_that_waits_is_not_late_and_a_step_without_a_kernel_is():
    watch = StepWatch(0.05)
    for _ in range(3):
        assert watch.late() is None
        time.sleep(0.04)
    with watch.step():
        found = []

        def look():
            while not found:
                found.extend(filter(None, [watch.late()]))
                time.sleep(0.01)
        thread = threading.Thread(target=look)
        thread.start()
        thread.join(20)
    assert re.match(r"a step took over 0\.05 s in which no kernel was called, at .*:\d+", found[0])
