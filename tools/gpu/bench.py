"""Decode and prefill speed of cuda_cupy on random weights, checked in the same run.

    python3 tools/gpu/bench.py MODEL:DTYPE[:int8|int4] ... [--profile] [--prefill N]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import cupy
import numpy as np

from core.session import Session
from cuda_cupy import compiler
from cuda_cupy.bandwidth import measure
from cuda_cupy.capture import mark_repeating, record
from cuda_cupy.device import device

sys.path.insert(0, str(Path(__file__).parent))
from synthetic import session

PROMPT, TOKENS = 32, 128


def generate(s: Session, prompt: list[int], count: int) -> tuple[list[int], float, float]:
    """(tokens, seconds of the prefill, seconds of the decode) from an empty context."""
    s.truncate(0)
    start = time.perf_counter()
    s.prefill(prompt)
    tokens = [s.token]
    middle = time.perf_counter()
    tokens += [s.step() for _ in range(count - 1)]
    return tokens, middle - start, time.perf_counter() - middle


def replay_us(launches: list[Any], count: int = 60) -> float:
    """Microseconds of the launches as one captured graph, by events."""
    mark_repeating()
    graph = record(lambda: [run() for run in launches])
    stream = device().stream
    events = [cupy.cuda.Event() for _ in range(2)]
    for _ in range(5):
        graph()
    events[0].record(stream)
    for _ in range(count):
        graph()
    events[1].record(stream)
    events[1].synchronize()
    return cupy.cuda.get_elapsed_time(*events) / count * 1000


def profile(s: Session) -> None:
    """What each kernel costs in place: the step's time less its time without that kernel."""
    s.truncate(0)
    s.prefill(list(range(1, 120)))
    plan = s.decoder
    pairs = [(step, launch) for step, launch in plan.walk() if step.op.name != "advance"]
    whole = replay_us([launch for _, launch in pairs])
    print(f"  step {whole:7.1f} us in {len(pairs)} launches, without advance")
    names = dict.fromkeys(kind(step) for step, _ in pairs)
    for name in names:
        rest = replay_us([launch for step, launch in pairs if kind(step) != name])
        count = sum(kind(step) == name for step, _ in pairs)
        print(f"    {name:42s} x{count:3d}  {(whole - rest) / count:7.2f} us each")


class Timer:
    """An observer of a session that times each kernel, launched one by one."""

    def __init__(self) -> None:
        self.times: dict[str, float] = {}

    def run(self, plan: Any) -> None:  # noqa: ANN401
        stream = device().stream
        for step, launch in plan.walk():
            events = [cupy.cuda.Event() for _ in range(2)]
            events[0].record(stream)
            launch()
            events[1].record(stream)
            events[1].synchronize()
            taken = cupy.cuda.get_elapsed_time(*events)
            self.times[kind(step)] = self.times.get(kind(step), 0) + taken


def profile_prefill(s: Session, prompt: list[int]) -> None:
    """Milliseconds of each kernel of a prefill."""
    s.observer = timer = Timer()
    generate(s, prompt, 1)
    s.observer = None
    for name, taken in sorted(timer.times.items(), key=lambda t: -t[1])[:5]:
        print(f"    {name:42s} {taken:8.2f} ms")


def kind(step: Any) -> str:  # noqa: ANN401
    return f"{step.node.name.rpartition('.')[2]} {step.kernel.name}"


def logits(s: Session) -> Any:  # noqa: ANN401 - a numpy array
    """Of the step queued last (which may be one ahead of the last token)."""
    return s.decoder.output("logits").numpy()[0].astype(np.float32)


def close(a: Any, b: Any) -> float:  # noqa: ANN401
    return float(np.abs(a - b).max() / np.abs(b).max())


def run(text: str, args: argparse.Namespace) -> str:
    name, dtype, *rest = text.split(":")
    bits = {"int8": 8, "int4": 4}[rest[0]] if rest else None
    start = time.perf_counter()
    s = session(name, dtype, bits, "cuda_cupy")
    ready = time.perf_counter() - start
    prompt = np.random.default_rng(5).integers(5, 20000, PROMPT).tolist()
    generate(s, prompt, 4)
    runs = [generate(s, prompt, TOKENS) for _ in range(3)]
    tokens, _, seconds = min(runs, key=lambda r: r[2])
    finite = bool(np.isfinite(logits(s)).all())
    same_again = all(r[0] == tokens for r in runs)
    plain = session(name, dtype, bits, "cuda_cupy", store=s.weights, fusion=False)
    plain_tokens, _, plain_seconds = generate(plain, prompt, TOKENS)
    for each in (s, plain):  # two tokens on: later ones may differ where two logits nearly tie
        generate(each, prompt, 2)
    error = close(logits(s), logits(plain))
    agree = sum(a == b for a, b in zip(tokens, plain_tokens, strict=True))
    plan = s.decoder
    launches = [launch for step, launch in plan.walk()]
    device_us = replay_us([x for x, (step, _) in zip(launches, plan.walk(), strict=True)
                           if step.op.name != "advance"])
    ok = finite and same_again and error < (1e-3 if dtype == "f32" else 5e-2)
    line = (f"{text:22s} {(TOKENS - 1) / seconds:7.0f} tok/s  host+device "
            f"{seconds / (TOKENS - 1) * 1e6:6.1f} us, device {device_us:6.1f} us, "
            f"{len(launches)} launches; prefill {min(r[1] for r in runs) * 1e3:.2f} ms; no fusion "
            f"{(TOKENS - 1) / plain_seconds:.0f} tok/s, {agree}/{TOKENS} tokens equal, logits "
            f"{error:.1e}; {'ok' if ok else 'WRONG'}; ledger {plan.ledger.hash}; "
            f"ready {ready:.1f} s")
    print(line, flush=True)
    if args.profile:
        profile(s)
    if args.prefill:
        long = np.random.default_rng(6).integers(5, 20000, args.prefill - 1).tolist()
        times = [generate(s, long, 1)[1] for _ in range(4)]
        print(f"  prefill of {len(long)} tokens: {min(times[1:]) * 1e3:.2f} ms, "
              f"{len(long) / min(times[1:]):.0f} tokens/s (first {times[0] * 1e3:.0f} ms)")
        _, _, taken = generate(s, long[:-2 * TOKENS], TOKENS)
        print(f"  decode after {len(long) - 2 * TOKENS} tokens: {(TOKENS - 1) / taken:.0f} tok/s")
        if args.profile:
            profile_prefill(s, long)
    return line


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="+")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--prefill", type=int, default=0)
    args = parser.parse_args()
    lines = [run(text, args) for text in args.models]
    print(f"memory reads at {measure() / 1e12:.2f} TB/s")
    print(f"compiled {compiler.stats.misses}, from the cache {compiler.stats.hits}")
    print("== summary", *lines, sep="\n")


if __name__ == "__main__":
    main()
