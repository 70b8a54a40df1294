"""Runs engines for many steps with aborts and preemptions, and checks every block after each step.

    python tools/serving/e4.py [--model NAME] [--backend NAMES ...] [--steps 10000]

The cache has room for a few sequences only. Requests come at random, share beginnings, and half of
them are dropped while they wait, are computed, or have just ended. After the last step nothing may
be held. Exit code 1: a check failed, a block is not free again, or aborts or preemptions were
missing.
"""

from __future__ import annotations

import argparse
import random
import sys
import time

import models
from models import SamplingParams
from models.serving.engine import Engine

HEAD = ("| backend | steps | requests | aborted: waiting, running, ended | preemptions | tokens "
        "found in the prefix cache | free at the end | |\n" + "|---" * 8 + "|")
SLOTS, BLOCKS, CONTEXT = 8, 16, 128  # sequences at once; blocks of 16 tokens; tokens of one


def run(engine: Engine, steps: int, seed: int) -> tuple[int, dict[str, int], int]:
    """Take so many steps, then drop what is left. Returns the requests that came, how many were
    aborted by where they were, and the tokens that were found in the prefix cache."""
    rng, came, cached, aborted = random.Random(seed), 0, 0, dict[str, int]()
    due: dict[str, int] = {}  # steps until a request is dropped
    beginnings = [[rng.randrange(3, 500) for _ in range(48)] for _ in range(3)]

    def drop(name: str) -> None:
        found = [r for r in [*engine.scheduler.waiting, *engine.scheduler.running]
                 if r.request_id == name]
        where = found[0].status.value if found else "ended"
        aborted[where] = aborted.get(where, 0) + 1
        engine.abort_request(name)

    for _ in range(steps):
        while rng.random() < 0.4 and len(engine.scheduler.waiting) < 6:
            name, came = str(came), came + 1
            ids = [*rng.choice(beginnings)[:rng.choice((0, 16, 40))],
                   *(rng.randrange(3, 500) for _ in range(rng.randrange(1, 30)))]
            engine.add_request(name, ids, SamplingParams(
                seed=came, max_tokens=rng.randrange(1, 58), n=rng.choice((1, 1, 1, 2)),
                ignore_eos=True), streams=False)
            if rng.random() < 0.5:
                due[name] = rng.randrange(30)
        for name in [n for n, left in due.items() if left == 0]:
            del due[name]
            drop(name)
        due = {n: left - 1 for n, left in due.items()}
        cached += sum(o.cached_tokens for o in engine.step() if o.finished)
        engine.check()
    for request in {r.request_id for r in [*engine.scheduler.waiting, *engine.scheduler.running]}:
        engine.abort_request(request)
    while engine.has_unfinished_requests:
        engine.step()
    engine.step()  # what was in flight gives its blocks back
    engine.check()
    return came, aborted, cached


def main() -> int:
    """Print a line a backend."""
    p = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    p.add_argument("--model", default="stories-llama2")
    p.add_argument("--backend", nargs="+", default=["cpu_numpy", "cpu_numba,cpu_numpy"])
    p.add_argument("--steps", type=int, default=10_000)
    args = p.parse_args()
    failed = False
    print(HEAD)
    for backend in args.backend:
        start = time.perf_counter()
        with models.load_engine(args.model, backend=backend, max_num_seqs=SLOTS, kv_blocks=BLOCKS,
                                max_context=CONTEXT) as engine:
            came, aborted, cached = run(engine, args.steps, 1)
            free, stats = engine.pool.free, engine.stats
            places = [aborted.get(where, 0) for where in ("waiting", "running", "ended")]
            right = free == BLOCKS and min(*places, stats.preemptions, cached) > 0
            print(f"| {backend} | {stats.steps:,} | {came:,} | {', '.join(map(str, places))} | "
                  f"{stats.preemptions} | {cached:,} | {free} of {BLOCKS} | "
                  f"{'right' if right else 'WRONG'}, {time.perf_counter() - start:.0f} s |",
                  flush=True)
        failed |= not right
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
