"""Loads a server through HTTP with many users at once, and checks what it answers.

    python tools/gpu/load.py [--backend cuda_cupy] [--model random:llama3.2-1b:bf16]
        [--users 32,128] [--prompt 128] [--tokens 128] [--url URL] [--json FILE]

Starts `kernelyard serve` on a free port. Every user streams one greedy completion of random ids;
all begin at once. A round with other prompts goes before, whose times are thrown away. Clients run
in processes of their own, so that they take no time from the server. The texts of some users are
then compared with `Model.generate`, one sequence alone. Where two tokens differ, the rest is
another text, so they must be a near tie in the logits of the sequence alone. Exit code 1: an answer
is wrong, or not whole. With --url a server that runs already, of any kind, is measured, and nothing
is compared.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import multiprocessing
import os
import random
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

import models
from models.analysis.pairs import NEAR_TIE, NEAR_TIE_ULPS

sys.path.insert(0, str(Path(__file__).parents[1] / "clients"))
from server import serving

CLIENTS = 8  # processes
CHECKED = 8  # users of a round whose texts are compared
VOCABULARY = 32_000  # ids are drawn below it: every shape has more, or as many
HEAD = ("| users | first token, p50 | p99 | between tokens, p50 | p99 | tokens/s | compared |\n"
        "|---|---|---|---|---|---|---|")


@dataclass
class Answer:
    """Holds a user's prompt, the ids that came, and when each part came, in s since the request."""

    prompt: list[int]
    ids: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    ended: float = 0.0  # CLOCK_MONOTONIC
    whole: bool = False


def prompt_of(name: str, length: int, vocabulary: int) -> list[int]:
    rng = random.Random(name)
    return [rng.randrange(3, vocabulary) for _ in range(length)]


async def stream(http: httpx.AsyncClient, prompt: list[int], tokens: int, model: str) -> Answer:
    """Send one request. Parts are only noted while they come, and read when all have come."""
    body = {"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0,
            "ignore_eos": True, "stream": True, "return_token_ids": True}
    found, parts, sent = Answer(prompt), list[tuple[float, bytes]](), time.monotonic()
    async with http.stream("POST", "/v1/completions", json=body) as answer:
        async for part in answer.aiter_raw():
            parts.append((time.monotonic(), part))
    rest = b""
    for at, part in parts:
        *events, rest = (rest + part).split(b"\n\n")
        for event in events:
            if event == b"data: [DONE]":
                found.whole = answer.status_code == 200
            elif event.startswith(b"data: {"):
                for choice in json.loads(event[6:]).get("choices", ()):
                    # servers without this field send a token a part
                    ids = choice.get("token_ids", [-1] if choice.get("text") else [])
                    found.ids += ids
                    found.times += [at - sent] if ids else []
    found.ended = parts[-1][0] if parts else time.monotonic()
    return found


async def together(url: str, prompts: list[list[int]], tokens: int, model: str, begin: float,
                   ) -> list[Answer]:
    """Send requests at one time of CLOCK_MONOTONIC."""
    limits = httpx.Limits(max_connections=len(prompts))
    async with httpx.AsyncClient(base_url=url, timeout=300, limits=limits) as http:
        await asyncio.sleep(max(0.0, begin - time.monotonic()))
        return await asyncio.gather(*(stream(http, p, tokens, model) for p in prompts))


def share(*args: Any) -> list[Answer]:  # noqa: ANN401 - those of `together`
    """Send requests from one client process."""
    return asyncio.run(together(*args))


def users(pool: ProcessPoolExecutor, url: str, prompts: list[list[int]], tokens: int, model: str,
          ) -> tuple[list[Answer], float]:
    """Run all users, spread over the processes. Returns their answers, and seconds in all."""
    begin = time.monotonic() + 1.0
    parts = [prompts[i::CLIENTS] for i in range(CLIENTS) if prompts[i::CLIENTS]]
    waiting = [pool.submit(share, url, part, tokens, model, begin) for part in parts]
    answers = [answer for part in waiting for answer in part.result()]
    return answers, max(answer.ended for answer in answers) - begin


def quantile(values: list[float], q: float) -> float:
    return sorted(values)[min(len(values) - 1, int(q * len(values)))] if values else math.nan


def compare(model: models.Model, answer: Answer) -> str:
    """Return `equal`, `near tie`, or what is wrong."""
    expected = model.generate(answer.prompt, max_new_tokens=len(answer.ids)).run().tokens
    if answer.ids == expected:
        return "equal"
    at = next(i for i, token in enumerate(expected) if token != answer.ids[i])
    logits = model.logits(answer.prompt + expected[:at])[-1].astype(np.float64)
    bound = max(NEAR_TIE, NEAR_TIE_ULPS * model.activations.eps) * float(np.abs(logits).max())
    gap = float(logits[expected[at]] - logits[answer.ids[at]])
    if gap <= bound:
        return "near tie"
    return (f"token {at} is {answer.ids[at]}, alone {expected[at]}, whose logit is larger by "
            f"{gap:.3g}; rounding explains {bound:.3g}")


def measure(args: argparse.Namespace, url: str, name: str) -> dict[int, tuple[list[Answer], float]]:
    """Return the answers and the seconds of each number of users."""
    found = {}
    with ProcessPoolExecutor(CLIENTS, multiprocessing.get_context("spawn")) as pool:
        for count in args.users:
            for kind in ("warm-up", "measured"):
                prompts = [prompt_of(f"{kind} {count} {i}", args.prompt, args.vocabulary)
                           for i in range(count)]
                found[count] = users(pool, url, prompts, args.tokens, name)
    return found


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--backend", default="cuda_cupy")
    p.add_argument("--model", default="random:llama3.2-1b:bf16")
    p.add_argument("--users", default="32,128", metavar="N[,N]",
                   type=lambda text: [int(n) for n in text.split(",")])
    p.add_argument("--prompt", type=int, default=128, metavar="TOKENS")
    p.add_argument("--tokens", type=int, default=128, help="new ones of each user")
    p.add_argument("--vocabulary", type=int, default=VOCABULARY, help="ids are drawn below this")
    p.add_argument("--url", help="measure this server")
    p.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    args = p.parse_args()
    start, checked = time.monotonic(), dict[int, list[str]]()
    context = str(args.prompt + args.tokens + 1)
    if args.url:
        name = httpx.get(f"{args.url}/v1/models", timeout=60).json()["data"][0]["id"]
        found = measure(args, args.url, name)
    else:
        with tempfile.TemporaryDirectory() as folder, serving(
                Path(folder), args.model, "--backend", args.backend, "--max-context", context,
                "--max-num-seqs", str(max(args.users)), "--served-model-name", "m") as server:
            print(f"ready after {time.monotonic() - start:.1f} s\n{server.log.read_text().strip()}")
            found = measure(args, server.url, "m")
        with models.load(args.model, backend=args.backend, max_context=int(context)) as model:
            checked = {count: [compare(model, a) for a in answers[:CHECKED]]
                       for count, (answers, _) in found.items()}
    print(f"{args.model}, {args.backend}: {args.prompt} tokens in, {args.tokens} out, greedy, "
          f"streamed; {os.cpu_count()} cores\n{HEAD}")
    ok, rows = True, []
    for count, (answers, seconds) in found.items():
        first = [a.times[0] * 1e3 for a in answers if a.times]
        between = [(b - a) * 1e3 for answer in answers
                   for a, b in zip(answer.times, answer.times[1:], strict=False)]
        made, words = sum(len(a.ids) for a in answers), checked.get(count, [])
        broken = sum(not a.whole or len(a.ids) != args.tokens for a in answers)
        wrong = [word for word in words if word not in ("equal", "near tie")]
        ok &= not (broken or wrong)
        row = [quantile(first, .5), quantile(first, .99), quantile(between, .5),
               quantile(between, .99), made / seconds]
        rows.append([count, *row])
        print(f"| {count} | {' | '.join(f'{ms:.1f} ms' for ms in row[:4])} | {row[4]:,.0f} | "
              f"{words.count('equal')} equal, {words.count('near tie')} part at a near tie |")
        for word in [*wrong, *([f"{broken} answers are not whole"] if broken else [])]:
            print(f"WRONG: {word}")
    if args.json:
        args.json.write_text(json.dumps(rows))
    print(f"{time.monotonic() - start:.0f} s in all; {'all right' if ok else 'WRONG'}")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
