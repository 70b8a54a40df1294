"""Measures how long an engine takes to make a plan of another size, its kernels being compiled.

    python tools/serving/plan_time.py [--model random:qwen2.5-0.5b:bf16] [--backend NAMES ...]
                                      [--limit MS]

It prints milliseconds of this thread's CPU time for a decode step and for a step with a prompt:
the least and the median of 16 sizes that are new. Exit code 1: a median is above the limit.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import models
from core.runtime.step import GraphKind
from core.runtime.step_plans import StepPlans

DECODE, PROMPT = (GraphKind(head, "argmax", batch=True) for head in ("all", "last"))
SIZES = 16


def made(steps: StepPlans, kind: GraphKind, tokens: int, sequences: int) -> float:
    """Return the milliseconds in which a plan is made."""
    start = time.thread_time()
    steps.get(kind, {"T": tokens, "S": sequences, "R": sequences})
    return (time.thread_time() - start) * 1e3


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="random:qwen2.5-0.5b:bf16")
    parser.add_argument("--backend", nargs="+", default=["cpu_numpy", "cpu_numba,cpu_numpy"])
    parser.add_argument("--limit", type=float, default=20.0, metavar="MS")
    args = parser.parse_args()
    worst = 0.0
    print("| backend | step | nodes | least, ms | median, ms |\n|---|---|---|---|---|")
    for backend in args.backend:
        with models.load_engine(args.model, backend=backend, max_context=1024, max_num_seqs=32,
                                kv_blocks=64) as engine:
            steps = engine.executor.steps
            for name, kind, sizes in (
                    ("decode", DECODE, [(n, n) for n in range(2, 4 + SIZES)]),
                    ("prompt", PROMPT, [(40 + n, 4) for n in range(2 + SIZES)])):
                each = [made(steps, kind, *size) for size in sizes][2:]  # the first ones choose
                worst = max(worst, statistics.median(each))
                print(f"| {backend} | {name} | {len(steps.made[-1].bindings)} | {min(each):.1f} | "
                      f"{statistics.median(each):.1f} |", flush=True)
    return 1 if worst > args.limit else 0


if __name__ == "__main__":
    sys.exit(main())
