"""Tries other spreads for each matrix of a decode step, in place: the whole step is timed.

    python3 tools/gpu/tune.py SHAPE:STORED[:int8] ...      (llama3.2-1b:bf16)
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace

from core.installed.registry import default_registry
from core.plan.plan import Plan
from cuda_cupy import shapes
from cuda_cupy.shapes import Spread
from models.analysis.timing import time_bindings, timed_bindings
from models.checkpoints.random import random_checkpoint
from models.engine.load import open_checkpoint
from models.engine.options import LoadOptions

NAMES = ("spread", "spread_pairs", "spread_codes", "spread_code_pairs")
ORIGINAL = {name: getattr(shapes, name) for name in NAMES}
Key = tuple[str, int, int]


class Table:
    """Holds the chosen spread of each matrix: the package's own, or the one under trial."""

    def __init__(self) -> None:
        self.seen: dict[Key, Spread] = {}
        self.chosen: dict[Key, Spread] = {}
        for name in NAMES:
            setattr(shapes, name, self.lookup(name))

    def lookup(self, name: str) -> Callable[[int, int], Spread]:
        def find(rows: int, row_bytes: int) -> Spread:
            key = (name, rows, row_bytes)
            self.seen[key] = self.chosen.get(key) or ORIGINAL[name](rows, row_bytes)
            return self.seen[key]
        return find


def variants(key: Key, now: Spread) -> list[Spread]:
    pieces = -(-key[2] // 512)
    depths = [replace(now, depth=d) for d in (8, 12, 16, 24)]
    warps = [replace(now, warps=w) for w in (4, 8, 16)]
    if "code" in key[0]:
        least = 2 if key[0] == "spread_code_pairs" else 1
        more = [replace(now, rows=r) for r in (1, 2, 4, 8) if r >= least and r * pieces <= 48]
        if least == 1:
            more += [replace(now, split=n) for n in (1, 2, 4)]
    else:
        more = [replace(now, steps=n) for n in (1, 2, 4, 8) if n * now.rows * pieces <= 80]
        if key[0] == "spread":
            more += [replace(now, split=n, steps=1) for n in (1, 2, 4)]
    return [v for v in dict.fromkeys([*more, *warps, *depths])
            if v != now and v.split <= v.warps]


def rebind(plan: Plan) -> Plan:
    """Bind the same step anew, by the table as it is now."""
    graph = plan.graph
    tensors = {v.name: plan.tensor(v) for kind in ("input", "state") for v in graph.roots(kind)}
    return Plan(graph, plan.policy, plan.weights, tensors, repeats=True)


def step_us(plan: Plan) -> float:
    again = rebind(plan)
    return min(time_bindings(again, timed_bindings(again)) for _ in range(2)) * 1e6


def tune(text: str) -> None:
    shape, stored, *rest = text.split(":")
    table = Table()
    options = LoadOptions("cuda_cupy", quantize=rest[0] if rest else None, max_context=512)
    with open_checkpoint(random_checkpoint(shape, stored), options, default_registry()) as model:
        model.session.prefill(list(range(5, 120)))
        plan = model.session.decoder
        best = step_us(plan)
        print(f"{text}: {best:.1f} us", flush=True)
        for key, start in list(table.seen.items()):
            now = start
            for _ in range(2):  # a second round starts from the first one's best
                tried = []
                for variant in variants(key, now):
                    table.chosen[key] = variant
                    tried.append((step_us(plan), variant))
                time, variant = min(tried, key=lambda t: t[0])
                if time >= best - 0.5:
                    break
                best, now = time, variant
            table.chosen[key] = now
            print(f"  {key}: {start} -> {now if now != start else 'same'}, {best:.1f} us",
                  flush=True)
        again = step_us(plan)
        print(f"{text}: tuned {again:.1f} us = {1e6 / again:.0f} steps/s")


if __name__ == "__main__":
    for each in sys.argv[1:]:
        tune(each)
