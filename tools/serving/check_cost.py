"""Measures what `kernelyard serve --check` costs: tokens/s of an engine at several rates.

    python tools/serving/check_cost.py --model stories-llama3 --against reference

Prints rows of a table. Rounds of all rates are interleaved; each number is the median. Seconds of
the CPU are given too: on a busy machine they vary less. The outputs of all rates must be equal.
"""

from __future__ import annotations

import argparse
import statistics
import time

from core.runtime.executor import Executor
from models.engine.load import load_engine
from models.engine.options import LoadOptions
from models.serving.engine import Engine
from models.serving.live.check import LiveCheck
from models.serving.params import SamplingParams

SEQUENCES = 8


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--model", default="stories-llama3")
    p.add_argument("--backend", default="cpu_numpy")
    p.add_argument("--against", default="reference")
    p.add_argument("--rates", type=float, nargs="+", default=[0.01, 0.1])
    p.add_argument("--tokens", type=int, default=300)
    p.add_argument("--rounds", type=int, default=3)
    args = p.parse_args()
    options = LoadOptions(backend=args.backend, max_context=args.tokens + 16)
    registry = options.registry(args.against)
    with load_engine(args.model, options, registry=registry, max_num_seqs=SEQUENCES) as engine:
        checks = {rate: LiveCheck(engine.executor, registry, [args.against], rate)
                  for rate in args.rates}
        submitters: dict[float, Executor | LiveCheck] = {0.0: engine.executor, **checks}
        expected, found = run(engine, args.tokens)[2], {rate: [] for rate in submitters}
        for _ in range(args.rounds):
            for rate, engine.submitter in submitters.items():
                wall, cpu, tokens = run(engine, args.tokens)
                assert tokens == expected, f"rate {rate} has changed an answer"
                found[rate].append((wall, cpu))
    for rate, times in found.items():
        wall, cpu = (statistics.median(column) for column in zip(*times, strict=True))
        counts = checks[rate].counts if rate in checks else None
        steps = "-" if counts is None else f"{counts.steps}, {sum(counts.wrong.values())} wrong"
        print(f"| {args.model} | {args.against} | {rate:g} | "
              f"{SEQUENCES * args.tokens / wall:,.0f} | {cpu:.2f} | {steps} |", flush=True)


def run(engine: Engine, tokens: int) -> tuple[float, float, list[list[int]]]:
    """Return seconds, seconds of the CPU, and the tokens of one batch."""
    params = SamplingParams(max_tokens=tokens, ignore_eos=True, temperature=0)
    wall, cpu = time.perf_counter(), time.process_time()
    outputs = engine.generate([[1, 40, 50 + i] for i in range(SEQUENCES)], params)
    return (time.perf_counter() - wall, time.process_time() - cpu,
            [output.outputs[0].token_ids for output in outputs])


if __name__ == "__main__":
    main()
