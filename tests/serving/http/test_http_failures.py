"""Tests limits, clients that leave, keys, and what is said when the engine or the server ends."""

import asyncio
import json
import os
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from http_server import serving

BODY = {"model": "stories-llama2", "prompt": "Once upon a time", "max_tokens": 400,
        "temperature": 0, "ignore_eos": True}


def events(response: httpx.Response) -> list[str]:
    return [line for line in response.iter_lines() if line]


def test_clients_that_leave_free_their_blocks(server):
    """Half of them stream; they leave while they wait, while they are computed, or never."""
    rng = random.Random(5)

    async def run():
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            async def one(stream: bool, pause: float):
                body = {**BODY, "stream": stream, "n": rng.choice([1, 2])}

                async def ask():
                    async with http.stream("POST", "/v1/completions", json=body) as answer:
                        async for _ in answer.aiter_raw():
                            pass
                try:
                    await asyncio.wait_for(ask(), pause)
                except (TimeoutError, asyncio.TimeoutError):
                    return True
                return False
            return await asyncio.gather(*(one(i % 2 == 0, rng.choice([0.02, 0.2, 1, 3]))
                                          for i in range(40)))
    assert sum(asyncio.run(run())) > 5, "some have left"
    server.idle()
    answer = httpx.post(f"{server.url}/v1/completions", json={**BODY, "max_tokens": 5}, timeout=60)
    assert answer.status_code == 200
    assert "Traceback" not in server.said, server.said


def test_a_body_beyond_the_limit(server):
    large = json.dumps({**BODY, "prompt": "a" * (1 << 20)}).encode()
    headers = {"content-type": "application/json"}
    answer = httpx.post(f"{server.url}/v1/completions", content=large, headers=headers)
    assert answer.status_code == 413 and "1,048,576 bytes" in answer.json()["error"]["message"]

    def pieces():  # without a length
        for start in range(0, len(large), 1 << 16):
            yield large[start:start + (1 << 16)]
    answer = httpx.post(f"{server.url}/v1/completions", content=pieces(), headers=headers)
    assert answer.status_code == 413


def test_long_prompts_do_not_hold_up_others(server):
    """Two prompts of 900 kB are encoded (and then refused, as too long)."""
    body = {**BODY, "prompt": "a dog " * 150_000}
    started, statuses = time.monotonic(), []
    threads = [threading.Thread(target=lambda: statuses.append(httpx.post(
        f"{server.url}/v1/completions", json=body, timeout=120).status_code)) for _ in range(2)]
    for thread in threads:
        thread.start()
    slowest = 0.0
    while any(thread.is_alive() for thread in threads):
        before = time.monotonic()
        assert httpx.get(f"{server.url}/health", timeout=60).status_code == 200
        slowest = max(slowest, time.monotonic() - before)
    assert statuses == [400, 400]
    assert slowest < (time.monotonic() - started) / 2, "health waited for an encoder"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """Return a server with keys and with a short queue; the last test ends it."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "keys").write_text("first-key\n\nsecond-key\n")
    (folder / "keys").chmod(0o600)
    with serving(folder, "--api-key-file", str(folder / "keys"), "--max-num-seqs", "2",
                 "--max-queue", "3") as found:
        yield found


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_keys(guarded):
    for path in ("/v1/models", "/v1/ledger", "/metrics", "/openapi.json", "/v1/nothing"):
        for headers in ({}, bearer("wrong"), {"Authorization": "Basic first-key"},
                        {"Authorization": "first-key"}):
            answer = httpx.get(f"{guarded.url}{path}", headers=headers)
            assert answer.status_code == 401, (path, headers)
            assert answer.json()["error"]["code"] == "invalid_api_key"
    assert httpx.post(f"{guarded.url}/v1/completions", json=BODY).status_code == 401
    for key in ("first-key", "second-key"):
        assert httpx.get(f"{guarded.url}/v1/models", headers=bearer(key)).status_code == 200
    assert httpx.get(f"{guarded.url}/health").status_code == 200
    assert httpx.get(f"{guarded.url}/").status_code == 200
    assert "key" not in guarded.said.replace("--api-key-file", "")


def test_a_full_queue(guarded):
    """Two texts of three run; where one waits, there is no room for three more."""
    with httpx.Client(base_url=guarded.url, headers=bearer("first-key"), timeout=60) as http:
        for _ in range(9):  # the first one has ended before the second came on no machine so far
            with http.stream("POST", "/v1/completions", json={**BODY, "n": 3, "stream": True}):
                answer = http.post("/v1/completions", json={**BODY, "n": 3, "max_tokens": 1})
            after = http.post("/v1/completions", json={**BODY, "max_tokens": 3})
            assert after.status_code == 200, "nothing of the others is left"
            if answer.status_code != 200:
                break
        assert answer.status_code == 429 and int(answer.headers["retry-after"]) >= 1
        assert "wait already" in answer.json()["error"]["message"]
        never = http.post("/v1/completions", json={**BODY, "n": 4})
        assert never.status_code == 400 and "retry-after" not in never.headers
        assert "at most 3 may wait" in never.json()["error"]["message"]


def test_sigterm_lets_requests_end(guarded):
    with httpx.stream("POST", f"{guarded.url}/v1/completions", json={**BODY, "stream": True},
                      headers=bearer("first-key"), timeout=60) as answer:
        lines = answer.iter_lines()
        first = next(lines)
        guarded.process.send_signal(signal.SIGTERM)
        rest = [line for line in lines if line]
    assert first.startswith("data: ") and rest[-1] == "data: [DONE]"
    assert guarded.process.wait(30) == 0
    assert "Traceback" not in guarded.said, guarded.said


def test_requests_that_outlast_the_drain_are_told(tmp_path):
    with serving(tmp_path, "--drain", "0") as server, ThreadPoolExecutor(2) as pool:
        long = {**BODY, "n": 8, "logprobs": 20}
        whole = pool.submit(httpx.post, f"{server.url}/v1/completions", json=long, timeout=60)
        with httpx.stream("POST", f"{server.url}/v1/completions", json={**long, "stream": True},
                          timeout=60) as answer:
            lines = answer.iter_lines()
            next(lines)
            while server.metric("num_requests_running") < 16 and not whole.done():
                time.sleep(0.02)
            server.process.send_signal(signal.SIGTERM)
            rest = [line for line in lines if line]
        assert rest[-2] == "event: error" and "--drain" in rest[-1]
        assert whole.result().status_code == 503 and "--drain" in whole.result().text
        assert server.process.wait(30) == 0
        assert "Traceback" not in server.said, server.said


def test_two_interrupts_end_at_once_without_a_traceback(tmp_path):
    with serving(tmp_path) as server:
        with httpx.stream("POST", f"{server.url}/v1/completions", timeout=60, json={
                **BODY, "n": 8, "logprobs": 20, "stream": True}) as answer:
            parts = answer.iter_raw()
            next(parts)
            for _ in range(2):
                server.process.send_signal(signal.SIGINT)
                time.sleep(0.1)  # signals that wait together are one
            with pytest.raises(httpx.HTTPError):
                list(parts)
        assert server.process.wait(30) == 130
        assert "Traceback" not in server.said and "interrupted" in server.said, server.said


def test_a_killed_engine_is_an_error_for_everyone(tmp_path):
    with serving(tmp_path) as server:
        url, ends = server.url, []
        ready = threading.Barrier(5)

        def stream(path: str, body: dict):
            with httpx.stream("POST", f"{url}{path}", json={**body, "stream": True, "n": 8},
                              timeout=60) as answer:
                lines = answer.iter_lines()
                next(lines)
                ready.wait(60)
                ends.append([line for line in lines if line])

        def whole():
            ready.wait(60)
            ends.append(httpx.post(f"{url}/v1/completions", json={**BODY, "n": 8}, timeout=60))
        chat = {**BODY, "messages": [{"role": "user", "content": "Once"}]}
        threads = [threading.Thread(target=stream, args=("/v1/completions", BODY)),
                   threading.Thread(target=stream, args=("/v1/completions", BODY)),
                   threading.Thread(target=stream, args=("/v1/chat/completions", chat)),
                   threading.Thread(target=whole)]
        for thread in threads:
            thread.start()
        engine = server.engine_pid
        ready.wait(60)
        time.sleep(0.05)
        os.kill(engine, signal.SIGKILL)
        killed = time.monotonic()
        while (health := httpx.get(f"{url}/health")).status_code == 200:
            assert time.monotonic() - killed < 5
        assert health.status_code == 503 and "killed by SIGKILL" in health.json()["reason"]
        for thread in threads:
            thread.join(60)
        for end in ends:
            if isinstance(end, httpx.Response):
                assert end.status_code == 503 and "SIGKILL" in end.json()["error"]["message"]
                continue
            assert "data: [DONE]" not in end and end[-2] == "event: error"
            assert "SIGKILL" in json.loads(end[-1].removeprefix("data: "))["error"]["message"]
        assert len(ends) == 4
        answer = httpx.post(f"{url}/v1/completions", json=BODY)
        assert answer.status_code == 503 and "SIGKILL" in answer.json()["error"]["message"]
        assert server.metric("engine_up") == 0
