"""Measures what trust costs: the ledger in a decode step, --check beside the backends' own times,
and off.

Prints one JSON object. Random weights at a published shape, fewer layers; outputs are checked in
the same run. Times are medians over interleaved rounds.

`--beside CHECKOUT` runs the script of an older checkout in turn with this one, a process each, and
prints the medians of both and this one's over the other's. It takes CPU seconds, which other work
on the machine disturbs little: give each backend one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
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

#: the program of a checkout, by CPU seconds
_BY_CPU = ("import runpy, time; time.perf_counter = time.process_time; "
           "runpy.run_path('tools/verify_overhead.py', run_name='__main__')")


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--shape", default="qwen2.5-0.5b", help="a published shape or a shipped model")
    p.add_argument("--layers", type=int, default=4)
    p.add_argument("--backend", default="cpu_numpy")
    p.add_argument("--check", default="cpu_numba,cpu_numpy",
                   help="the backends that check it")
    p.add_argument("--steps", type=int, default=20)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--beside", type=Path, metavar="CHECKOUT")
    p.add_argument("--runs", type=int, default=5, help="of each program, with --beside")
    args = p.parse_args()
    print(json.dumps(measure(args) if args.beside is None else beside(args), indent=1))


def beside(args: argparse.Namespace) -> dict[str, Any]:
    """Run both checkouts' programs in turn, and compare the medians of their seconds a step."""
    same = [f"--{k}={getattr(args, k)}" for k in ("shape", "layers", "backend", "check", "steps",
                                                  "rounds")]
    homes = {"before": args.beside.resolve(), "now": Path(__file__).resolve().parents[1]}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in homes}
    for run in range(args.runs):
        for name in sorted(homes, reverse=run % 2 == 0):
            home = homes[name]
            path = os.pathsep.join(map(str, [home, *sorted((home / "backends").iterdir())]))
            done = subprocess.run([sys.executable, "-c", _BY_CPU, *same], cwd=home, check=True,
                                  env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE)
            said = json.loads(done.stdout)
            found[name].append({**said["step_s"], "check_over_sum": said["check_over_sum"]})
    medians = {name: {k: statistics.median(r[k] for r in runs) for k in runs[0]}
               for name, runs in found.items()}
    return {"runs": args.runs, **medians, "now_over_before": {
        k: medians["now"][k] / medians["before"][k] for k in medians["now"]}}


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
