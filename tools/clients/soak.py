"""Lets clients that leave at random load a server for minutes, looks for leaks, prints a table.

    python tools/clients/soak.py [--minutes N] [--clients N] [--page] [--model NAME] …

After a warm-up nothing may grow: at rest, before and after the run, both processes have the same
file descriptors and threads, and no block of the cache is held. While requests run, the anonymous
memory of both is sampled, and a line is fitted to it, over requests and over the engine's plans:
their number is bounded, and rare sizes of a step come late. Exit code 1: something grew, a
connection broke, or there were too few requests to say so.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import ssl
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
from server import Server, serving
from table import write

WARM_UP = 1500  # requests: every plan is made, and every block of the cache used
BLOCKS = 640  # of the cache; the operating system gives memory to a block as it is first used
EVERY = 2.0  # seconds between samples
MOST = 100.0  # bytes of a request: an entry of a dictionary and its key would be more
WORDS = ("once", "upon", "a", "time", "there", "was", "little", "dog", "girl", "who", "liked", "to")
CONTEXT = ssl.create_default_context()  # httpx would make one for each client, which takes long
QUESTION = {"prompt": "Once upon a time", "max_tokens": 24, "temperature": 0}


@dataclass
class Load:
    """Counts what clients did, and samples the memory of both processes."""

    answered: Counter[int] = field(default_factory=Counter)
    left: int = 0
    broken: list[str] = field(default_factory=list)
    samples: dict[str, list[tuple[int, int, int]]] = field(default_factory=dict)

    @property
    def requests(self) -> int:
        return sum(self.answered.values()) + self.left

    async def sample(self, server: Server) -> None:
        """Note the numbers of requests and plans, and RssAnon in bytes, until cancelled."""
        while True:
            await asyncio.sleep(EVERY)
            plans = int(await asyncio.to_thread(server.metric, "num_plans"))
            for name, pid in server.processes.items():
                self.samples.setdefault(name, []).append((self.requests, plans, anonymous(pid)))

    async def client(self, url: str, seed: int, end: float, least: int) -> None:
        """Send requests one after another until `end` and until all clients have sent `least`. Half
        of them are given up after a random time."""
        rng = random.Random(seed)
        while time.monotonic() < end or self.requests < least:
            async with httpx.AsyncClient(base_url=url, timeout=120, verify=CONTEXT) as http:
                for _ in range(rng.randrange(1, 9)):
                    patience = rng.choice([0.002, 0.02, 0.2, 1, 120, 120, 120, 120])
                    try:
                        self.answered[await asyncio.wait_for(ask(http, rng), patience)] += 1
                    except asyncio.TimeoutError:
                        self.left += 1
                        break  # its connection is closed
                    except httpx.TransportError as error:
                        self.broken.append(f"{type(error).__name__} {error}, {self.requests} "
                                           f"requests after the start")
                        break


async def ask(http: httpx.AsyncClient, rng: random.Random) -> int:
    """Send one request of a random kind and read all of its answer. Returns the status."""
    text = " ".join(rng.choice(WORDS) for _ in range(rng.choice([1, 5, 20, 60])))
    body = {"max_tokens": rng.choice([1, 8, 40, 120]), "stream": rng.random() < 0.5,
            "n": rng.choice([1, 1, 2]), "temperature": rng.choice([0, 0.8]), "ignore_eos": True}
    if rng.random() < 0.05:
        body["temperature"] = -1  # is refused
    if rng.random() < 0.1:
        body["logprobs"] = 3
    if rng.random() < 0.5:
        text = "Once upon a time there was a little dog who liked to play in the park. " + text
    async with http.stream("POST", "/v1/completions", json={**body, "prompt": text}) as answer:
        async for _ in answer.aiter_raw():
            pass
        return answer.status_code


def anonymous(pid: int) -> int:
    """Return a process' anonymous memory in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon:"))


async def load(server: Server, clients: int, seconds: float, seed: int, least: int = 0) -> Load:
    """Run clients for so many seconds and at least so many requests."""
    found, end = Load(), time.monotonic() + seconds
    watch = asyncio.ensure_future(found.sample(server))
    await asyncio.gather(*(found.client(server.url, seed + i, end, least) for i in range(clients)))
    watch.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watch
    return found


def at_rest(server: Server) -> dict[str, int | str]:
    """Return what must be the same before and after a run."""
    idle = server.idle()
    time.sleep(10)  # the sockets of clients that left are closed
    found: dict[str, int | str] = {
        "requests that run or wait": 0 if idle else "some",
        "blocks held": "none" if not server.metric("kv_cache_usage_perc") else "some"}
    for name, pid in server.processes.items():
        found[f"file descriptors, {name}"] = len(os.listdir(f"/proc/{pid}/fd"))
        found[f"threads, {name}"] = len(os.listdir(f"/proc/{pid}/task"))
    answer = httpx.post(f"{server.url}/v1/completions", json=QUESTION, timeout=60)
    found["a greedy text"] = answer.json()["choices"][0]["text"].strip()[:24]
    return found


def growth(samples: list[tuple[int, int, int]]) -> tuple[float, float, float]:
    """Return bytes a request, their standard error, and bytes a plan (0 where no plan was made), by
    least squares over (requests, plans, bytes)."""
    found = np.array(samples, np.float64)
    found -= found.mean(0)
    columns = found[:, :2] if found[:, 1].any() else found[:, :1]
    slopes = np.linalg.lstsq(columns, found[:, 2])[0]
    rest = found[:, 2] - columns @ slopes
    spread = rest @ rest / (len(found) - columns.shape[1] - 1) * np.linalg.inv(columns.T @ columns)
    return float(slopes[0]), float(np.sqrt(spread[0, 0])), float(slopes[1:].sum())


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--minutes", type=float, default=5)
    p.add_argument("--clients", type=int, default=32)
    p.add_argument("--model", default="stories-llama2")
    p.add_argument("--backend", default="cpu_numpy")
    p.add_argument("--page", action="store_true", help="write the table into docs/server.md")
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as folder, serving(
            Path(folder), args.model, "--backend", args.backend, "--max-num-seqs", "16",
            "--max-queue", "256", "--kv-blocks", str(BLOCKS)) as server:
        asyncio.run(load(server, args.clients, 0, 1, WARM_UP))
        before = at_rest(server)
        found = asyncio.run(load(server, args.clients, args.minutes * 60, 1000))
        after = at_rest(server)
        said = server.log.read_text()
        silent = "Traceback" not in said
    if found.broken or not silent:
        print(*found.broken, said, sep="\n", file=sys.stderr)
    ok = not found.broken and before == after and before["blocks held"] == "none" and silent
    ok &= found.requests >= WARM_UP and not [status for status in found.answered if status >= 429]
    lines = [
        f"{args.model}, {args.backend}: {args.clients} clients, {args.minutes:g} minutes after "
        f"{WARM_UP:,} requests to warm up: {found.requests:,} requests; clients left "
        f"{found.left:,} of them; statuses "
        + ", ".join(f"{status}: {n:,}" for status, n in sorted(found.answered.items()))
        + (". No traceback in the log." if silent else ". THE LOG HAS TRACEBACKS."), "",
        "| | before | after |", "|---|---|---|",
        *(f"| {name} | {value} | {after[name]} |" for name, value in before.items())]
    for name, samples in found.samples.items():
        slope, error, plan = growth(samples)
        ok &= slope - 2 * error <= MOST
        lines.append(f"| memory, {name} | {samples[0][2] / 2**20:.1f} MiB, {samples[0][1]} plans | "
                     f"{samples[-1][2] / 2**20:.1f} MiB, {samples[-1][1]} plans; {slope:+.0f} ± "
                     f"{2 * error:.0f} bytes a request (most: {MOST:.0f})"
                     + (f", {plan / 2**10:+.0f} KiB a plan |" if plan else " |"))
    print("\n".join(lines))
    if args.page:
        write("soak", [
            "### Clients that leave", "",
            f"Measured by `tools/clients/soak.py --minutes {args.minutes:g}`. Of the slopes, the "
            "engine's plans are taken out: at most 96 are kept,",
            "one for each kind and size of step, and rare sizes come late.", "", *lines])
    print("nothing grew" if ok else "SOMETHING GREW")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
