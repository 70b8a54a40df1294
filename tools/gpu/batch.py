"""Time an engine with many sequences: python tools/gpu/batch.py BACKEND SHAPE [options]."""

from __future__ import annotations

import argparse
import json

from models.analysis.batch_bench import check_engine, measure_decode, measure_nano, read_matrices
from models.checkpoints.random import random_checkpoint
from models.engine.load import settle_checkpoint
from models.engine.options import EngineOptions, LoadOptions
from models.engine.pool import open_engine


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
        print(json.dumps({"verdict": verdict, "device": config.policy.primary.describe()}))


if __name__ == "__main__":
    main()
