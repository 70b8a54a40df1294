"""python -m models.bench: speed at published shapes, and proof that what was timed is right."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from core.errors import OptionError
from core.verify.crosscheck import REFERENCE, CrossCheck
from models.analysis.bench_report import benchmark
from models.analysis.profile import host_seconds, profile_parts
from models.checkpoints.random import SHAPES, random_checkpoint
from models.cli.arguments import (
    add_arguments,
    add_backend_options,
    add_rule_options,
    chosen_registry,
)
from models.cli.command import command
from models.engine.config import Options
from models.engine.load import KV_DTYPES, open_checkpoint
from models.engine.model import Model

CHECKED_TOKENS, CHECKED_STEPS = 8, 2


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser("python -m models.bench", description=__doc__)
    p.add_argument("--shape", action="append", choices=list(SHAPES), help="may repeat (default: "
                   "all)")
    p.add_argument("--backend", default="cpu_numpy", metavar="NAME[,NAME]")
    p.add_argument("--stored", default="f32", choices=("f32", "f16", "bf16"),
                   help="dtype of the stored weights (default: f32)")
    p.add_argument("--dtype", choices=("f32", "f16", "bf16"), help="of the activations")
    add_arguments(p)
    p.add_argument("--kv-dtype", choices=KV_DTYPES)
    p.add_argument("--layers", type=int, metavar="N", help="fewer layers than the shape has")
    p.add_argument("--prompt", type=int, default=32, metavar="N", help="tokens of the prompt")
    p.add_argument("--tokens", type=int, default=128, metavar="N", help="tokens to decode")
    p.add_argument("--repeat", type=int, default=5, metavar="N")
    p.add_argument("--no-fusion", action="store_true")
    add_backend_options(p)
    add_rule_options(p)
    p.add_argument("--profile", action="store_true",
                   help="also time each kind of kernel of the prompt and of a decode step alone")
    p.add_argument("--json", action="store_true")
    return p


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done, 1 the checked run disagreed with the reference, 2 bad input."""
    args = parser().parse_args(argv)
    if min(args.prompt, args.tokens, args.repeat, args.layers or 1) < 1 or args.tokens < 2:
        raise OptionError("--prompt, --repeat and --layers must be at least 1, --tokens 2")
    rows = [measure(shape, args) for shape in args.shape or SHAPES]
    if args.json:
        print(json.dumps(rows, indent=1))
    else:
        benchmark(rows)
    return 0 if all(row["ok"] for row in rows) else 1


def measure(shape: str, args: argparse.Namespace) -> dict[str, Any]:
    """One row: times in seconds, rates in tokens or bytes a second, the verdict, the ledger."""
    registry = chosen_registry(args, args.backend)
    options = Options(args.backend, args.dtype, args.quantize, args.kv_dtype,
                      args.prompt + args.tokens, fusion=not args.no_fusion,
                      deterministic=args.deterministic, lock=args.lock,
                      group_size=args.group_size, keep=args.keep,
                      quantize_only=args.quantize_only)
    checked, verdict, ok = _check(shape, args, options)
    with open_checkpoint(random_checkpoint(shape, args.stored, layers=args.layers), options,
                         registry) as model:
        backend = registry.backend(model.session.selector.backends[0])
        ids = np.random.default_rng(1).integers(0, model.config.vocab_size, args.prompt).tolist()
        runs = [_run(model, ids, args.tokens) for _ in range(args.repeat + 1)][1:]  # one to warm up
        if _kernels(model) != checked:
            verdict, ok = f"{verdict}, but with other kernels than were timed", False
        if any(tokens != runs[0][2] for _, _, tokens in runs):
            verdict, ok = "runs with the same input gave different tokens", False
        prefill, step = [r[0] for r in runs], [r[1] for r in runs]
        weights, bandwidth = _matrix_bytes(model), backend.read_bandwidth()
        second = statistics.median(step)
        return {
            "shape": shape, "layers": model.config.layers, "backend": args.backend,
            "device": backend.describe(), "stored": args.stored, "quantize": args.quantize,
            "keep": args.keep, "quantize_only": args.quantize_only,
            "prompt": args.prompt, "tokens": args.tokens, "repeat": args.repeat,
            "prefill_tokens_per_s": args.prompt / statistics.median(prefill),
            "time_to_first_token_s": statistics.median(prefill),
            "decode_tokens_per_s": 1 / second,
            "host_step_s": host_seconds(model.session, ids),
            "decode_spread": (max(step) - min(step)) / second,
            "matrix_bytes": weights, "read_bytes_per_s": weights / second,
            "bandwidth_bytes_per_s": bandwidth,
            "bandwidth_share": weights / second / bandwidth if bandwidth else None,
            "ledger": model.ledger.hash, "verdict": verdict, "ok": ok,
            "profile": profile_parts(model.session, ids, bandwidth) if args.profile else []}


def _run(model: Model, ids: list[int], tokens: int) -> tuple[float, float, list[int]]:
    """(seconds to the first token, mean seconds of a further one, the tokens)."""
    generation = model.generate(ids, max_new_tokens=tokens).run()
    stats = generation.stats
    return stats.prefill_s, stats.decode_s / (len(generation.tokens) - 1), generation.tokens


def _check(shape: str, args: argparse.Namespace, options: Options,
           ) -> tuple[set[tuple[str, str]], str, bool]:
    """The kernels of the first and the last layer, which have all kinds that a model has, and the
    head at this shape, each held to the float64 definition."""
    registry, start = chosen_registry(args, args.backend), time.perf_counter()
    with open_checkpoint(random_checkpoint(shape, args.stored, layers=min(2, args.layers or 2)),
                         options, registry) as model:
        check = CrossCheck(registry, [REFERENCE])
        model.session.observer = check
        model.generate(list(range(1, 1 + min(CHECKED_TOKENS, args.prompt))),
                       max_new_tokens=1 + CHECKED_STEPS).run()
        calls, wrong = sum(r.calls for r in check.rows), sum(r.wrong for r in check.rows)
        verdict = (f"{calls} kernel calls of two layers and the head checked against float64 in "
                   f"{time.perf_counter() - start:.0f} s, {wrong} wrong")
        return _kernels(model), verdict, check.ok


def _kernels(model: Model) -> set[tuple[str, str]]:
    """What a decode step runs."""
    return {(e.op, e.kernel) for e in model.session.decoder.ledger.entries}


def _matrix_bytes(model: Model) -> int:
    """Bytes of the weight matrices that a decode step reads, codes and scales where quantised."""
    weights = model.session.weights
    read = {v.root.name for n in model.session.decoder.graph.nodes
            if n.op.name in ("linear", "quantized_linear") for v in n.inputs.values()
            if v is not None and v.kind == "weight"}
    return sum(weights.arrays[name].nbytes for name in read if weights.arrays[name].ndim == 2)


if __name__ == "__main__":
    sys.exit(main())
