"""Measures what a streamed token costs HTTP, where the engine computes nothing.

    python tools/clients/stream_cost.py [--users N] [--ms PERIOD] [--rounds N]

The engine's process gives each user a token every PERIOD ms (default: 0, as fast as the link takes
them). CPU is of the process that answers, all of its threads. Tokens that are ready together go in
one event, so a token costs least where the engine is far ahead.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from functools import partial
from multiprocessing import get_context
from types import SimpleNamespace

import numpy as np
from latency import TOKENS, many_users

import models
from core.plan.ledger import Ledger
from core.runtime.batch import Batch, SequenceTable
from core.runtime.executor import Pending
from models.checkpoints.base import SHIPPED
from models.serving.engine import Engine
from models.serving.http.app import create_app
from models.serving.http.listen import bind, run_app
from models.serving.http.service import Service
from models.tokenizers.base import load_tokenizer

MODEL, CONTEXT, BLOCK = "stories-llama3", 512, 16
TICK = os.sysconf("SC_CLK_TCK")


class NoKernels:
    """Stands in for an executor: samples some token of each sequence, every `period` seconds."""

    run_ahead, ledger = 1, Ledger(())

    def __init__(self, users: int, vocab_size: int, period: float) -> None:
        self.table, self._period, self._next = SequenceTable(users, CONTEXT // BLOCK), period, 0.0
        self.policy = SimpleNamespace(backends=("none",))
        self.steps = SimpleNamespace(get=lambda kind, dims: None, made=(), cache=())
        self._draw = partial(np.random.default_rng(0).integers, 300, vocab_size, dtype=np.int32)

    def submit(self, batch: Batch) -> Pending:
        time.sleep(max(0.0, self._next - time.monotonic()))
        self._next = time.monotonic() + self._period
        return Pending(batch.places, {"token": lambda: self._draw(len(batch.places))}, None)

    def close(self) -> None:
        pass


def open_engine(users: int, period: float) -> Engine:
    """Open an engine without kernels, in the engine's process."""
    tokenizer = load_tokenizer(SHIPPED / MODEL)
    return Engine(
        NoKernels(users, tokenizer.size, period), tokenizer, vocab_size=tokenizer.size,
        eos_ids=frozenset(), blocks=users * CONTEXT // BLOCK,
        scheduler_options={"max_num_seqs": users, "max_num_batched_tokens": 8192,
                           "max_model_len": CONTEXT})


def client(server: int, url: str, users: int, rounds: int) -> None:
    """Print a line for each round of users, then end the server."""
    try:
        for _ in range(rounds):
            before = cpu(server)
            speed, gaps = many_users(url, MODEL, users)
            tokens, events = users * TOKENS, len(gaps) + users
            own, kernel = ((now - then) / tokens * 1e6
                           for now, then in zip(cpu(server), before, strict=True))
            print(f"{own:5.1f} µs of CPU a token and {kernel:5.1f} in the kernel, {speed:,.0f} "
                  f"tokens/s, {tokens / events:.1f} tokens an event, between events p50 "
                  f"{gaps[len(gaps) // 2]:.1f} ms, p99 {gaps[int(0.99 * len(gaps))]:.1f} ms",
                  flush=True)
    finally:
        os.kill(server, signal.SIGTERM)


def cpu(pid: int) -> tuple[float, float]:
    """Return the seconds of CPU that a process has taken, and that the kernel took for it."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return int(fields[11]) / TICK, int(fields[12]) / TICK


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--users", type=int, default=128)
    p.add_argument("--ms", type=float, default=0.0)
    p.add_argument("--rounds", type=int, default=5)
    args = p.parse_args()
    tokenizer = load_tokenizer(SHIPPED / MODEL)
    with bind("127.0.0.1", 0) as listener:
        engine = models.AsyncEngine(partial(open_engine, args.users, args.ms / 1e3), tokenizer)
        try:
            app = create_app(Service(engine, MODEL))
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            listener.listen(2048)
            child = get_context("spawn").Process(
                target=client, args=(os.getpid(), url, args.users, args.rounds))
            child.start()
            run_app(app, listener, engine, drain=1)
            child.join()
        finally:
            engine.close()
    return child.exitcode or 0


if __name__ == "__main__":
    sys.exit(main())
