"""Measures, for `models.bench`, the cost of each kernel, and the host's time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from core.plan.plan import Plan
from core.runtime.session import Session
from models.analysis.timing import profile, time_bindings, timed_bindings

_HOST_STEPS = 20


class Profiler:
    """Observes a session and times the kernels of each of these plans, once, with the inputs that
    it is about to run with: plans of a session share lengths and positions. The plans must have run
    before. `parts` has what `profiled` found."""

    def __init__(self, plans: dict[str, Plan], bandwidth: float | None) -> None:
        self.plans, self.bandwidth = plans, bandwidth
        self.parts: dict[str, dict[str, Any]] = {}

    def run(self, plan: Plan) -> None:
        for what, wanted in self.plans.items():
            if wanted is plan and what not in self.parts:
                self.parts[what] = profiled(plan, what, self.bandwidth)
        plan.run()


def profile_parts(session: Session, ids: Sequence[int], bandwidth: float | None,
                  ) -> list[dict[str, Any]]:
    """Profile the first decode step after a prompt, and the prompt, or the first of its largest
    parts; both have run before. The session is empty afterwards."""
    prompt = max((plan for plan in session.plans if plan is not session.decoder),
                 key=lambda plan: plan.bindings[0].call.dims["T"])
    profiler = Profiler({"decode": session.decoder, "prompt": prompt}, bandwidth)
    session.truncate()
    try:
        with session.observed(profiler):
            session.prefill(ids)
            session.step()
    finally:
        session.truncate()
    return [profiler.parts[what] for what in profiler.plans]


def profiled(plan: Plan, what: str, bandwidth: float | None) -> dict[str, Any]:
    """Time a plan's kernels, and all of them in one sequence, which is less where kernels
    overlap."""
    rows = [{**asdict(row), "bytes_per_s": row.nbytes / row.seconds,
             "bandwidth_share": row.nbytes / row.seconds / bandwidth if bandwidth else None}
            for row in profile(plan)]
    return {"what": what, "step_s": time_bindings(plan, timed_bindings(plan)), "kernels": rows}


def host_seconds(session: Session, ids: Sequence[int]) -> float:
    """Median seconds until the host has queued a decode step and is free: nearly the whole step
    on a CPU, the cost of launching or replaying it where the device works on its own. The session
    is empty afterwards."""
    session.truncate()
    session.prefill(ids)
    wait = session.policy.primary.allocator.synchronize
    times = []
    for _ in range(min(_HOST_STEPS, session.max_context - len(ids))):
        wait()
        start = time.perf_counter()
        session.decoder.run()
        times.append(time.perf_counter() - start)
    wait()
    session.truncate()
    return statistics.median(times)


