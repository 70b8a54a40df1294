"""Time an engine with many sequences: python tools/gpu/batch.py BACKEND SHAPE [options]."""

from __future__ import annotations

import argparse
import json

from core.plan.plan import Plan
from models.analysis.batch_bench import check_engine, measure_decode, measure_nano, read_matrices
from models.analysis.profile import profiled
from models.checkpoints.random import random_checkpoint
from models.engine.load import settle_checkpoint
from models.engine.options import EngineOptions, LoadOptions
from models.engine.pool import open_engine
from models.serving.engine import Engine


def main() -> None:
    p = argparse.ArgumentParser()
    p.add_argument("backend")
    p.add_argument("shape")
    p.add_argument("--counts", default="1,8,32,64,128")
    p.add_argument("--prompt", type=int, default=128)
    p.add_argument("--tokens", type=int, default=128)
    p.add_argument("--stored", default="bf16")
    p.add_argument("--quantize")
    p.add_argument("--layers", type=int)
    p.add_argument("--nano", action="store_true")
    p.add_argument("--profile", type=int, metavar="S", help="time each kernel of such a step")
    args = p.parse_args()
    counts = [int(n) for n in args.counts.split(",")] if args.counts else []
    options = LoadOptions(backend=args.backend, quantize=args.quantize,
                          max_context=2048 if args.nano else args.prompt + args.tokens)
    registry = options.registry()
    checkpoint = random_checkpoint(args.shape, args.stored, layers=args.layers)
    config = settle_checkpoint(checkpoint, options, registry)
    most = max([*counts, 256 if args.nano else 1])
    weights = config.weights()
    with open_engine(config, weights, EngineOptions(max_num_seqs=most)) as engine:
        bandwidth = config.policy.primary.read_bandwidth()
        verdict = check_engine(engine, registry, 5) if args.layers else ("unchecked", True)
        for n in counts:
            measure_decode(engine, n, args.prompt, 8, weights=0, bandwidth=None)  # to warm up
            matrices = read_matrices(engine.executor.steps.made[-1].graph, weights.arrays)
            row = measure_decode(engine, n, args.prompt, args.tokens, weights=matrices,
                                 bandwidth=bandwidth)
            print(json.dumps(row), flush=True)
        if args.nano:
            print(json.dumps(measure_nano(engine)), flush=True)
        if args.profile:
            profile_decode(engine, args.profile, args.prompt, bandwidth)
        print(json.dumps({"verdict": verdict, "device": config.policy.primary.describe()}))


class DecodeProfiler:
    """Observes an engine and times the kernels of its last decode step."""

    def __init__(self, tokens: int) -> None:
        self.tokens, self.plan = tokens, None

    def run(self, plan: Plan) -> None:
        plan.run()
        if plan.captured and plan.bindings[0].call.dims["T"] == self.tokens:
            self.plan = plan


def profile_decode(engine: Engine, count: int, prompt: int, bandwidth: float | None) -> None:
    """Print the time of each kind of kernel in a decode step of `count` sequences."""
    profiler = engine.executor.observer = DecodeProfiler(count)
    measure_decode(engine, count, prompt, 8, weights=0, bandwidth=None)
    engine.executor.observer = None
    part = profiled(profiler.plan, f"decode of {count}", bandwidth)
    print(f"step {part['step_s'] * 1e6:.0f} us")
    for k in part["kernels"]:
        second = k["seconds"] * 1e6
        print(f"{k['node']:40} {k['kernel']:36} {k['calls']:3} {second / k['calls']:8.1f} us each "
              f"{second:8.0f} us {k['bytes_per_s'] / 1e9:7.0f} GB/s")


if __name__ == "__main__":
    main()
