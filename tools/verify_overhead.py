"""Measures what trust costs: the ledger in a decode step, --check beside the backends' own times,
and off.

Prints one JSON object. Random weights at a published shape, fewer layers; outputs are checked in
the same run. Times are medians over interleaved rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

from core.installed.registry import default_registry
from core.plan.plan import Plan
from core.runtime.step import Sampling
from core.verify.crosscheck import CrossCheck
from models.checkpoints.base import read_checkpoint, shipped_models
from models.checkpoints.random import random_checkpoint
from models.engine.load import open_checkpoint
from models.engine.model import Model
from models.engine.options import LoadOptions


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--shape", default="qwen2.5-0.5b", help="a published shape or a shipped model")
    p.add_argument("--layers", type=int, default=4)
    p.add_argument("--backend", default="cpu_numpy")
    p.add_argument("--check", default="cpu_numba,cpu_numpy",
                   help="the backends that check it")
    p.add_argument("--steps", type=int, default=20)
    p.add_argument("--rounds", type=int, default=5)
    args = p.parse_args()
    print(json.dumps(measure(args), indent=1))


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Measure the seconds of a decode step: of either backend alone, and of the first while it is
    checked."""
    registry = default_registry()
    options = [LoadOptions(b, max_context=256) for b in (args.backend, args.check)]
    shipped = args.shape in shipped_models()
    checkpoints = [read_checkpoint(args.shape, registry) if shipped else
                   random_checkpoint(args.shape, "f32", layers=args.layers) for _ in options]
    first, second = (open_checkpoint(c, o, registry)
                     for c, o in zip(checkpoints, options, strict=True))
    check = CrossCheck(registry, [args.check])
    times: dict[str, list[float]] = {"alone": [], "other": [], "checked": []}
    for _ in range(args.rounds + 1):
        times["alone"].append(decode(first, args.steps, None))
        times["other"].append(decode(second, args.steps, None))
        times["checked"].append(decode(first, args.steps, check))
    step = {k: statistics.median(v[1:]) for k, v in times.items()}
    start = time.perf_counter()
    for _ in range(100):
        _ = first.session.decoder.ledger.hash
    ledger = (time.perf_counter() - start) / 100
    both = step["alone"] + step["other"]
    return {"shape": args.shape, "layers": args.layers, "backend": args.backend,
            "opinion": args.check, "step_s": step, "check_over_sum": step["checked"] / both,
            "ledger_and_hash_s": ledger, "ledger_over_100_steps": ledger / (100 * step["alone"]),
            "ledger_reads_in_a_step": ledger_reads(first),
            "ok": check.tally.ok, "comparisons": check.tally.calls}


def decode(model: Model, steps: int, check: CrossCheck | None) -> float:
    """Return the seconds a step takes after an untimed prefill and two steps."""
    session = model.session
    with session.observed(check):
        session.truncate(0)
        session.sample_with(Sampling())
        session.prefill(list(range(1, 33)))
        for _ in range(2):
            session.step()
        start = time.perf_counter()
        for _ in range(steps):
            session.step()
        return (time.perf_counter() - start) / steps


def ledger_reads(model: Model) -> int:
    """Count how often a decode step asks for a ledger: counted, not assumed."""
    reads = 0
    real = Plan.ledger

    def counted(plan: Plan) -> object:
        nonlocal reads
        reads += 1
        assert real.fget is not None
        return real.fget(plan)
    Plan.ledger = property(counted)  # type: ignore[assignment]
    try:
        decode(model, 3, None)
    finally:
        Plan.ledger = real  # type: ignore[method-assign]
    return reads


if __name__ == "__main__":
    main()
