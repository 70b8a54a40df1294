"""python -m models.plan: predicts the memory that a model will need, before anything is loaded."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from core.errors import BackendError, OptionError
from core.installed.registry import Registry, split_backends
from core.plugins.backend import Backend
from core.runtime.step import BLOCK_SIZE
from core.tensor.dtype import DType, as_dtype, f32
from models.checkpoints.base import DEFAULT_MODEL, Checkpoint, read_checkpoint
from models.checkpoints.random import SHAPES, abstract_checkpoint
from models.cli import report
from models.cli.arguments import add_load_options, add_model_option, load_options
from models.cli.command import command
from models.cli.console import make_table, open_console
from models.engine.config import EngineConfig, settle
from models.engine.load import restrict
from models.engine.memory import cache_bytes, footprint, longest, made_names, megabytes, nbytes
from models.engine.options import KV_DTYPES, EngineOptions, LoadOptions
from models.engine.pool import plan_engine

_NO_ROOM = "; fix: lower --max-context or --max-num-seqs, or take --quantize or --kv-dtype i8"
SERVING = ("max_num_seqs", "max_num_batched_tokens", "gpu_memory_utilization")
LENGTHS = (512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser("python -m models.plan", description=__doc__)
    what = p.add_mutually_exclusive_group()
    add_model_option(what, None)
    what.add_argument("--shape", choices=list(SHAPES), help="a published shape, without a file")
    p.add_argument("--stored", choices=("f32", "f16", "bf16"),
                   help="with --shape: dtype of the stored weights (default: bf16)")
    add_load_options(p)
    add_load_options(p, EngineOptions, only=SERVING)
    p.set_defaults(max_num_seqs=None)  # an engine is planned where this is given
    p.add_argument("--json", action="store_true", help="print one JSON object")
    return p


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 it fits or that is unknown, 1 it does not fit, 2 the input cannot be used."""
    args = parser().parse_args(argv)
    if args.stored and not args.shape:
        raise OptionError("--stored goes with --shape: a file says itself what it stores")
    options = load_options(args)
    registry = options.registry()
    report.left_out(registry)
    checkpoint = (abstract_checkpoint(args.shape, args.stored or "bf16") if args.shape else
                  read_checkpoint(args.model or DEFAULT_MODEL, registry))
    engine = {name: getattr(args, name) for name in SERVING}
    plan = make_plan(checkpoint, options, registry, None if args.max_num_seqs is None
                     else EngineOptions(**engine))
    if args.json:
        print(json.dumps(plan, indent=1))
    else:
        show(plan)
    return 1 if plan["fits"] is False else 0


def make_plan(checkpoint: Checkpoint, options: LoadOptions, registry: Registry,
              engine: EngineOptions | None = None) -> dict[str, Any]:
    """Return bytes and tokens, as --json prints them. Reads no weights and takes no device memory.
    `engine`: for how many sequences an engine shall be, if one is planned.

    Raises an InputError for options that cannot be used, NoKernelError as loading would.
    """
    name = split_backends(options.backend)[0]
    opened, reason = _open(registry, options)
    config = settle(checkpoint, options, registry,
                    opened.activation_dtype if opened else _unopened_dtype(registry, name))
    config = restrict(config) if opened else config
    device = opened.allocator.device if opened else registry.spec(name).device
    free = opened.allocator.available() if opened else None
    unopened = None if opened else device
    limit, made = config.config.max_positions, made_names(config)

    def row(context: int) -> dict[str, Any]:
        found = footprint(config, context, context, unopened)
        in_place = nbytes(config.abstract, made | found.shared) if device == "cpu" else 0
        activations = found.decode[device] + found.prompt[device] + found.inputs[device]
        total = found.peak(device) + in_place
        return {"tokens": context, "kv_cache": found.cache[device], "activations": activations,
                "weights": total - activations - found.cache[device], "total": total,
                "fits": None if free is None else total <= free}

    at = row(config.context)
    found = footprint(config, config.context, config.context, unopened)
    lengths = sorted({min(n, limit) for n in LENGTHS} | {config.context})
    kinds = {kind: as_dtype("int8" if kind == "i8" else kind) for kind in KV_DTYPES}
    return {
        "model": str(checkpoint.path), "backend": options.backend, "device": device,
        "unavailable": reason, "activations_dtype": config.activations.short,
        "kv_dtype": config.cache.short, "parameters": _parameters(config),
        "weights": _forms(config, made), "prepacked": [
            {"kernel": kernel, "dtype": dtype, "device": place, "bytes": count}
            for (place, kernel, dtype), count in sorted(found.packed.items())],
        "copied_to": dict(found.copied),
        "elsewhere": {d: found.peak(d) for d in _devices(registry, config, opened) - {device}},
        "kv_bytes_per_token": {k: cache_bytes(config, BLOCK_SIZE, d) // BLOCK_SIZE
                               for k, d in kinds.items()},
        "context": config.context, "at_context": at, "fits": at["fits"],
        "free": free, "contexts": [row(n) for n in lengths],
        "kv_cache": [{"tokens": n, **{k: cache_bytes(config, n, d)
                                      for k, d in kinds.items()}} for n in lengths],
        "longest_context": None if free is None else longest(lambda n: row(n)["total"], free,
                                                             limit),
        "limit": limit,
        "serving": None if engine is None else plan_engine(config, engine, unopened, made, free)}


def _open(registry: Registry, options: LoadOptions) -> tuple[Backend | None, str | None]:
    """Return the first backend, or why it cannot be used here. Raises BackendError if none has the
    name, or if a further one cannot be used."""
    first, *others = split_backends(options.backend)
    registry.spec(first)
    try:
        opened = registry.backend(first)
    except BackendError as error:
        return None, str(error)
    for name in others:
        registry.backend(name)
    return opened, None


def _unopened_dtype(registry: Registry, name: str) -> Callable[[DType], DType]:
    """Return the backend's own rule where its class can be imported, else float32."""
    kind = registry.backend_class(name)
    return (lambda stored: f32) if kind is None else kind.activation_dtype


def _devices(registry: Registry, config: EngineConfig, opened: Backend | None) -> set[str]:
    return {registry.backend(n).allocator.device for n in config.policy.backends} \
        if opened else set()


def _parameters(config: EngineConfig) -> int:
    """Count the numbers of the family's tensors: codes in blocks do not tell."""
    return sum(math.prod(t.shape) for t in config.architecture.tensors(config.config).values())


def _forms(config: EngineConfig, made: set[str]) -> list[dict[str, Any]]:
    """Sum weights by dtype and by where the host holds them."""
    weights = config.abstract
    count: Counter[tuple[str, str]] = Counter()
    size: Counter[tuple[str, str]] = Counter()
    for name, array in weights.arrays.items():
        matrix, _, part = name.rpartition(".")
        layout = weights.quantized.get(matrix)
        form = (weights.dtypes[name].short if layout is None else
                f"int{layout.bits} {part}, groups of {layout.group_size}")
        key = form, "made while loading" if name in made else "mapped from the file"
        count[key] += 1
        size[key] += array.nbytes
    return [{"form": form, "host": host, "tensors": count[form, host], "bytes": total}
            for (form, host), total in size.most_common()]


def show(plan: dict[str, Any]) -> None:
    """Print tables for people."""
    console = open_console()
    table = make_table("weights", "tensors", "size", "where", numbers=("tensors", "size"),
                       title=f"{plan['model']} on {plan['backend']} ({plan['device']})")
    for w in plan["weights"]:
        table.add_row(w["form"], str(w["tensors"]), megabytes(w["bytes"]), w["host"])
    for p in plan["prepacked"]:
        table.add_row(f"{p['dtype']}, prepacked", "", megabytes(p["bytes"]),
                      f"made for {p['kernel']}, on {p['device']}")
    for device, count in plan["copied_to"].items():
        table.add_row("all of these that kernels read", "", megabytes(count), f"copied to {device}")
    console.print(table)
    sizes = (*(f"KV cache {k}" for k in KV_DTYPES), "activations", f"total, KV {plan['kv_dtype']}")
    table = make_table("context", *sizes, "fits", numbers=("context", *sizes))
    for row, kv in zip(plan["contexts"], plan["kv_cache"], strict=True):
        fits = {None: "unknown", True: "yes", False: "NO"}[row["fits"]]
        table.add_row(f"{row['tokens']:,}", *(megabytes(kv[k]) for k in KV_DTYPES),
                      megabytes(row["activations"]), megabytes(row["total"]), fits)
    console.print(table)
    for line in _conclusions(plan):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _conclusions(plan: dict[str, Any]) -> list[str]:
    lines = [f"activations in {plan['activations_dtype']}: the decode step, and a prompt as long "
             "as the context, in chunks"]
    if plan["device"] == "cpu":
        lines.append("total = weights where they are read (mapped pages counted once), prepacked "
                     "forms, KV cache, activations")
    lines += [f"on {device}: {megabytes(n)} more" for device, n in plan["elsewhere"].items() if n]
    if plan["unavailable"]:
        lines += [f"free: unknown, {plan['unavailable']}",
                  "estimate: without the backend its kernels' scratch and prepacked weights are "
                  "not counted, and nothing is fused"]
    elif plan["free"] is None:
        lines.append("free: unknown, the device does not say")
    else:
        longest = plan["longest_context"]
        lines.append(f"free: {megabytes(plan['free'])}; the longest context that fits: "
                     + (f"{longest:,} of {plan['limit']:,} tokens" if longest else "none"))
    if (serving := plan["serving"]) is not None:
        lines.append(f"an engine for {serving['max_num_seqs']} sequences: weights and activations "
                     f"{megabytes(serving['held'])}, a block of {BLOCK_SIZE} tokens "
                     f"{megabytes(serving['block_bytes'])}, " + (
                         "free: unknown" if serving["blocks"] is None else
                         f"KV cache for {serving['tokens']:,} tokens: {serving['sequences']} "
                         f"sequences of {plan['context']:,} tokens at once")
                     + (_NO_ROOM if serving["sequences"] == 0 else ""))
    return lines


if __name__ == "__main__":
    sys.exit(main())
