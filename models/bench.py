"""python -m models.bench: measures speed at published shapes, and checks what was timed."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from core.errors import OptionError
from core.installed.registry import Registry, split_backends
from core.verify.crosscheck import CrossCheck
from core.verify.policies import REFERENCE
from models.analysis.batch_bench import NANO, bench_engine, product_flops, read_matrices
from models.analysis.bench_report import batches, benchmark, peers, tuning
from models.analysis.calls import available
from models.analysis.peers import Peer, Workload, measure_peers
from models.analysis.profile import host_seconds, profile_parts
from models.analysis.tuning import tune
from models.checkpoints.base import Checkpoint, read_checkpoint
from models.checkpoints.random import SHAPES, random_checkpoint
from models.cli import report
from models.cli.arguments import add_load_options, add_model_option, load_options
from models.cli.command import command
from models.engine.config import EngineConfig
from models.engine.load import open_checkpoint, settle_checkpoint
from models.engine.model import Model
from models.engine.options import LoadOptions

UNTUNED = {"kernels": "--kernel", "fusion": "--no-fusion", "deterministic": "--deterministic",
           "lock": "--lock", "profile": "--profile"}
CHECKED_TOKENS, CHECKED_STEPS = 256, 2  # of a prompt: kernels of more tokens are those of so many


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser("python -m models.bench", description=__doc__)
    what = p.add_mutually_exclusive_group()
    what.add_argument("--shape", action="append", choices=list(SHAPES),
                      help="a published shape with random weights; may repeat (default: all)")
    add_model_option(what, None)
    p.add_argument("--stored", default="f32", choices=("f32", "f16", "bf16"),
                   help="with --shape: dtype of the stored weights (default: f32)")
    p.add_argument("--layers", type=int, metavar="N", help="fewer layers than the shape has")
    p.add_argument("--prompt", "--context", type=int, default=32, metavar="N",
                   help="tokens of the prompt; of each one with --batch")
    p.add_argument("--batch", metavar="N,N", help="time an engine that decodes so many sequences "
                   "at once, such as 1,8,32")
    p.add_argument("--workload", choices=("nano",), help="time an engine with nano-vllm's requests")
    p.add_argument("--peers", metavar="NAME[=PYTHON],...", help="also time transformers, "
                   "llama.cpp, or both, at the same requests; PYTHON is the interpreter that has "
                   "it (default: this one)")
    p.add_argument("--tokens", type=int, default=128, metavar="N", help="tokens to decode")
    p.add_argument("--repeat", type=int, default=5, metavar="N")
    add_load_options(p, without=["max_context"])
    p.set_defaults(backend=None)  # every installed one with --op
    p.add_argument("--profile", action="store_true",
                   help="also time each kind of kernel of the prompt and of a decode step alone")
    p.add_argument("--op", action="append", default=[], metavar="NAME[,NAME]", help="time every "
                   "kernel of --backend, or of every installed one, at the model's own calls of "
                   "these ops, and check each; no weight is read; may repeat")
    p.add_argument("--json", action="store_true")
    return p


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done, 1 the checked run disagreed with the reference, 2 bad input."""
    args = parser().parse_args(argv)
    if min(args.prompt, args.tokens, args.repeat, args.layers or 1) < 1 or args.tokens < 2:
        raise OptionError("--prompt, --repeat and --layers must be at least 1, --tokens 2")
    if args.model is not None and args.layers is not None:
        raise OptionError("--layers goes with --shape: a model file has its own layers")
    if args.peers is not None and args.op:
        raise OptionError("--peers times whole models, and --op one op; leave out one of them")
    if args.op:
        return _tune(args)
    args.backend = args.backend or LoadOptions.backend
    report.left_out(load_options(args).registry())
    rows = list[dict[str, Any]]()
    many = bool(args.batch or args.workload)
    try:
        for name in [args.model] if args.model is not None else args.shape or SHAPES:
            for row in (_measure_engine if many else _measure_one)(name, args):
                rows.append(row)
                if not args.json:
                    (peers if "peer" in row else batches if many else benchmark)(rows[-1:])
    finally:  # what was measured is shown, whatever ends the rest
        if args.json:
            print(json.dumps(rows, indent=1))
    return 0 if all(row["ok"] for row in rows) else 1


def _tune(args: argparse.Namespace) -> int:
    if unused := [flag for name, flag in UNTUNED.items()
                  if getattr(args, name) not in (None, [], name == "fusion")]:
        raise OptionError(f"{unused[0]} chooses among kernels of a plan, and "
                          "--op times them all; leave it out")
    names = [n.strip() for text in args.op for n in text.split(",") if n.strip()]
    options = load_options(args, max_context=args.prompt + args.tokens,
                           backend=args.backend or LoadOptions.backend)
    registry, rows = options.registry(), []
    report.left_out(registry)
    backends = split_backends(args.backend) if args.backend else available(registry)
    try:
        for name in [args.model] if args.model is not None else args.shape or SHAPES:
            found = tune(partial(_checkpoint, name, args, registry, args.layers), options, registry,
                         backends, names, args.prompt, args.repeat)
            rows += [{"shape": name, **row} for row in found]
            if not args.json:
                tuning(name, found)
    finally:
        if args.json:
            print(json.dumps(rows, indent=1))
    return 0 if all(row["ok"] is not False for row in rows) else 1


def _measure_engine(name: str, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield rows of an engine. Raises OptionError for counts that are none."""
    counts = [int(n) if n.strip().isdecimal() else 0 for n in (args.batch or "").split(",") if n]
    if 0 in counts:
        raise OptionError(f"--batch {args.batch!r}: expected counts of sequences, such as 1,8,32")
    named, done = Peer.parse(args.peers or ""), list[Workload]()
    longest = 2 * NANO[2] if args.workload else args.prompt + args.tokens
    options = load_options(args, max_context=longest)
    registry = options.registry()

    def config(layers: int | None) -> EngineConfig:
        fewer = None if args.model is not None else layers or args.layers
        return settle_checkpoint(_checkpoint(name, args, registry, fewer), options, registry)
    facts = {"shape": name, "backend": args.backend, "quantize": args.quantize,
             "stored": args.stored}
    for row in bench_engine(config, counts, args.prompt, args.tokens, nano=bool(args.workload),
                            done=done):
        yield {**facts, **row}
    for row in measure_peers(named, config(None), done):
        yield {**facts, **row}


def _measure_one(name: str, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the row of one sequence, and then one for each peer."""
    named, done = Peer.parse(args.peers or ""), list[Workload]()
    yield measure(name, args, done)
    if named:
        options = load_options(args, max_context=args.prompt + args.tokens)
        registry = options.registry()
        checkpoint = _checkpoint(name, args, registry, args.layers)
        config = settle_checkpoint(checkpoint, options, registry)
        facts = {"shape": name, "backend": args.backend, "quantize": args.quantize}
        yield from ({**facts, **row} for row in measure_peers(named, config, done))


def measure(name: str, args: argparse.Namespace, done: list[Workload]) -> dict[str, Any]:
    """Return one row: times in seconds, rates in tokens or bytes a second, the verdict, the
    ledger. `done` gets what was asked and generated."""
    options = load_options(args, max_context=args.prompt + args.tokens)
    registry = options.registry()
    checked, verdict, ok = _check(name, args, options, registry)
    with open_checkpoint(_checkpoint(name, args, registry, args.layers), options,
                         registry) as model:
        model.stop_ids = frozenset()  # so many tokens are timed, whatever they say
        backend = model.session.policy.primary
        ids = np.random.default_rng(1).integers(0, model.config.vocab_size, args.prompt).tolist()
        runs = [_run(model, ids, args.tokens) for _ in range(args.repeat + 1)][1:]  # one to warm up
        if missing := _kernels(model) - checked:
            verdict, ok = (f"{verdict}, but timed with kernels that were not checked: "
                           f"{', '.join(kernel for _, kernel in sorted(missing))}"), False
        if any(tokens != runs[0][2] for _, _, tokens in runs):
            verdict, ok = "runs with the same input gave different tokens", False
        prefill, step = [r[0] for r in runs], [r[1] for r in runs]
        weights = read_matrices(model.session.decoder.graph, model.session.weights.arrays)
        bandwidth = backend.read_bandwidth()
        second, first = statistics.median(step), statistics.median(prefill)
        done.append(Workload([ids], [args.tokens], 0.0, [runs[0][2]],
                             first + second * (args.tokens - 1), first))
        return {
            "shape": name, "layers": model.config.layers, "backend": args.backend,
            "device": backend.describe(), "stored": model.session.weights.described(),
            "quantize": args.quantize, "keep": args.keep, "quantize_only": args.quantize_only,
            "prompt": args.prompt, "tokens": args.tokens, "repeat": args.repeat,
            "prefill_tokens_per_s": args.prompt / first,
            "chunk": max(plan.bindings[0].call.dims["T"] for plan in model.session.plans),
            "time_to_first_token_s": first,
            "decode_tokens_per_s": 1 / second,
            "host_step_s": host_seconds(model.session, ids),
            "decode_spread": (max(step) - min(step)) / second,
            **product_flops(model.session.decoder.graph),
            "matrix_bytes": weights, "read_bytes_per_s": weights / second,
            "bandwidth_bytes_per_s": bandwidth,
            "bandwidth_share": weights / second / bandwidth if bandwidth else None,
            "ledger": model.ledger.hash, "verdict": verdict, "ok": ok,
            "profile": profile_parts(model.session, ids, bandwidth) if args.profile else []}


def _checkpoint(name: str, args: argparse.Namespace, registry: Registry,
                layers: int | None) -> Checkpoint:
    if args.model is not None:
        return read_checkpoint(name, registry)
    return random_checkpoint(name, args.stored, layers=layers)


def _run(model: Model, ids: list[int], tokens: int) -> tuple[float, float, list[int]]:
    """Return (seconds to the first token, mean seconds of a further one, the tokens)."""
    generation = model.generate(ids, max_new_tokens=tokens).run()
    stats = generation.stats
    return stats.prefill_s, stats.decode_s / (len(generation.tokens) - 1), generation.tokens


def _check(name: str, args: argparse.Namespace, options: LoadOptions, registry: Registry,
           ) -> tuple[set[tuple[str, str]], str, bool]:
    """Hold each kernel to the float64 definition: of a shape's first and last layer, which have all
    kinds that it has, and its head; of a file, all layers."""
    start, layers = time.perf_counter(), min(2, args.layers or 2)
    with open_checkpoint(_checkpoint(name, args, registry, layers), options, registry) as model:
        check, model.stop_ids = CrossCheck(registry, [REFERENCE]), frozenset()
        with model.session.observed(check):
            model.generate(list(range(1, 1 + min(CHECKED_TOKENS, args.prompt))),
                           max_new_tokens=1 + CHECKED_STEPS).run()
        tally = check.tally
        verdict = (f"{tally.calls} kernel calls of {model.config.layers} layers and the head "
                   f"checked against float64 in {time.perf_counter() - start:.0f} s, "
                   f"{tally.found}")
        return _kernels(model), verdict, tally.ok


def _kernels(model: Model) -> set[tuple[str, str]]:
    """Return the kernels of the prompt and of decode steps."""
    return {(e.op, e.kernel) for plan in model.session.plans for e in plan.ledger.entries}


if __name__ == "__main__":
    sys.exit(main())
