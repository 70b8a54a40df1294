"""Our CPU backends beside llama.cpp: the same weights, the same threads, taking turns.

    python tools/bench_cpu/compare.py [--shapes tinyllama-1.1b llama3.2-1b qwen2.5-0.5b]
        [--weights f32 bf16 int8 int4] [--dtype f32] [--no-mmap] [--layers N] [--rounds 5]
        [--profile] [--json FILE]

Random weights at published shapes (speed does not depend on their values) are exported to GGUF by
our own writer: F32, BF16, Q8_0, Q4_0. llama.cpp and our backends each load that file in a process
of their own, and take turns at a prompt and greedy decoding; medians count. Then our logits, step
by step, are held to llama.cpp's for the same tokens, and every kernel of two layers and the head to
its float64 definition. A row that other programs disturbed is no result, and says so.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from engines import LLAMA, Engine

from core.installed.registry import default_registry
from core.plan.weights import no_progress
from models.checkpoints.base import read_checkpoint
from models.checkpoints.gguf.writer import TYPES, write_gguf
from models.checkpoints.random import SHAPES, random_checkpoint
from models.checkpoints.source import Source

#: How far logits may be from llama.cpp's, of the largest logit. f32: sums in another order. The
#: others: llama.cpp rounds activations to bf16, or to 8-bit codes by 32, before each product; ours
#: stay float32 (which is checked against the definition), so this bounds llama.cpp's rounding.
BOUNDS = {"f32": 2e-5, "f16": 5e-3, "bf16": 3e-2, "int8": 5e-2, "int4": 5e-2}
#: backend -> weights -> what decode and prefill ask for, as multiples of llama.cpp's speed
GOALS = {"cpu_numpy": {"f32": (1.0, 1.3)},
         "cpu_numba": {"f32": (1.2, 1.0), "bf16": (1.2, 1.0), "int8": (1.2, 1.0),
                       "int4": (1.0, 1.0)}}
#: share of the processors that other programs may take in the median turn
DISTURBED = 0.05
PAUSE = 0.5  # s before a turn: threads of the one before stay awake for a while, and take time
CHECKED = 9  # tokens of the checked prompt: more than the kernels for a few tokens take


def export(shape: str, kind: str, layers: int | None, folder: Path) -> Path:
    """The GGUF file, written unless it is there."""
    path = folder / f"{shape}-{kind}-{layers or 'all'}.gguf"
    if not path.exists():
        stored = kind if kind in ("f32", "f16", "bf16") else "f32"
        # ids alone are used; llama.cpp loads no file without a vocabulary
        tokenizer = read_checkpoint("stories-llama2", default_registry()).tokenizer
        checkpoint = replace(random_checkpoint(shape, stored, layers=layers), tokenizer=tokenizer)
        part = path.with_suffix(".part")
        write_gguf(Source(checkpoint, default_registry()), part, kind, no_progress)
        part.rename(path)
    return path


def compare(shape: str, kind: str, folder: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return one row for each of our backends."""
    path = export(shape, kind, args.layers, folder)
    names = [b for b in args.backends if args.every or kind in GOALS[b]]
    rng = np.random.default_rng(5)
    ids = rng.integers(5, SHAPES[shape]["vocab_size"], args.prompt).tolist()
    engines = [Engine(n, path, args.threads, args.prompt + args.tokens + 8,
                      activations(n, kind, args), mmap=not args.no_mmap)
               for n in (LLAMA, *names)]
    turns: dict[str, list[Any]] = {e.name: [] for e in engines}
    for _ in range(args.rounds + 1):
        for engine in engines:
            time.sleep(PAUSE)
            turns[engine.name].append(engine.timed(ids, args.tokens))
    limit = max(e.call("bandwidth") for e in engines[1:])
    speeds = {n: [statistics.median(t[i] for t in ts[1:]) for i in (0, 1)]
              for n, ts in turns.items()}  # without the first turn, which reads the weights in
    rows = []
    for engine in engines[1:]:
        facts, goal = engine.call("facts"), GOALS[engine.name].get(kind)
        (prefill, step), (their_prefill, their_step) = speeds[engine.name], speeds[LLAMA]
        ok, verdict = agreement(engine, engines[0], turns, ids, kind)
        others = max(statistics.median(t[3] for t in turns[n][1:])
                     for n in (engine.name, LLAMA))
        if others > DISTURBED:
            ok = False
            verdict = f"NOT VALID: other programs took {others:.0%} of the CPU; {verdict}"
        checked = check(shape, kind, folder, engine, args)
        rows.append({
            "shape": shape, "weights": kind, "layers": args.layers, "backend": engine.name,
            "decode": 1 / step, "llama_decode": 1 / their_step, "decode_ratio": their_step / step,
            "prefill": args.prompt / prefill, "llama_prefill": args.prompt / their_prefill,
            "prefill_ratio": their_prefill / prefill, "goal": goal,
            "bytes": facts["bytes"], "share": facts["bytes"] / step / limit, "bandwidth": limit,
            "verdict": f"{verdict}; {checked}", "ok": ok, "ledger": facts["ledger"],
            "version": facts["version"], "llama": engines[0].call("facts")["version"]})
        show(rows[-1])
        if args.profile:
            profile(engine, ids)
    for engine in engines:
        engine.close()
    if not args.folder:
        path.unlink()
    return rows


def activations(backend: str, kind: str, args: argparse.Namespace) -> str | None:
    """Return our activations' dtype: bf16 where llama.cpp, too, rounds them, to bf16 or 8-bit
    codes."""
    if backend != "cpu_numba":
        return None
    return args.dtype or ("f32" if kind == "f32" else "bf16")


def agreement(engine: Engine, llama: Engine, turns: dict[str, list[Any]], ids: list[int],
              kind: str) -> tuple[bool, str]:
    """Return whether our logits are as near to llama.cpp's as `kind` allows, at every step."""
    generated = [t[2] for t in turns[engine.name]]
    first = generated[0]
    ours, theirs = (e.call("logits", ids, first) for e in (engine, llama))
    error = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    same = int((ours.argmax(-1) == theirs.argmax(-1)).sum())
    repeatable = all(g == first for g in generated) and ours.argmax(-1).tolist() == first
    ok = error < BOUNDS[kind] and repeatable  # not so for NaN
    return ok, (f"{'ok' if ok else 'WRONG'}: {same}/{len(ours)} greedy tokens, logits within "
                f"{error:.1e} of {BOUNDS[kind]:.0e}{'' if repeatable else ', not repeatable'}")


def check(shape: str, kind: str, folder: Path, engine: Engine, args: argparse.Namespace) -> str:
    """Check every kernel of two layers and the head against float64; the same kernels as were
    timed."""
    if args.no_check:
        return "kernels not checked"
    path = export(shape, kind, min(2, args.layers or 2), folder)
    small = Engine(engine.name, path, args.threads, 2 * CHECKED,
                   activations(engine.name, kind, args), mmap=not args.no_mmap)
    said: str = small.call("check", list(range(1, CHECKED + 1)))
    if small.call("kernels") != engine.call("kernels"):
        raise RuntimeError(f"{engine.name}: the check ran other kernels than were timed: "
                           f"{small.call('kernels')}, {engine.call('kernels')}")
    small.close()
    return said


def show(r: dict[str, Any]) -> None:
    goal = "" if not r["goal"] else "".join(
        f" {what} {'reaches' if r[what + '_ratio'] >= g else 'MISSES'} {g:.1f}x"
        for what, g in zip(("decode", "prefill"), r["goal"], strict=True))
    print(f"{r['shape']:14s} {r['weights']:4s} {r['backend']:9s} | decode {r['decode']:7.2f} "
          f"{r['llama_decode']:7.2f} {r['decode_ratio']:5.2f}x, {r['share']:4.0%} of "
          f"{r['bandwidth'] / 1e9:.1f} GB/s | prefill {r['prefill']:6.1f} "
          f"{r['llama_prefill']:6.1f} {r['prefill_ratio']:5.2f}x |{goal} | {r['verdict']} | "
          f"{r['ledger']}", flush=True)


def profile(engine: Engine, ids: list[int]) -> None:
    """Time each kind of kernel of a prefill and of a decode step, run alone."""
    for phase, rows in engine.call("profile", ids).items():
        whole = sum(r.seconds for r in rows)
        print(f"  {phase}: {whole * 1e3:.1f} ms")
        for r in rows[:10]:
            print(f"    {r.node:32s} {r.kernel:30s} x{r.calls:3d} {r.seconds * 1e3:8.2f} ms "
                  f"{r.nbytes / r.seconds / 1e9:6.1f} GB/s "
                  f"{r.flops / r.seconds / 1e9:6.0f} GFLOP/s")


def machine() -> str:
    info = Path("/proc/cpuinfo")
    cpu = next((line.partition(":")[2].strip() for line in info.read_text().splitlines()
                if line.startswith("model name")), "?") if info.exists() else platform.processor()
    return f"{cpu}, {len(os.sched_getaffinity(0))} cores, {platform.platform()}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shapes", nargs="+", choices=sorted(SHAPES),
                        default=["tinyllama-1.1b", "llama3.2-1b", "qwen2.5-0.5b"])
    parser.add_argument("--weights", nargs="+", choices=sorted(TYPES),
                        default=["f32", "bf16", "int8", "int4"])
    parser.add_argument("--backends", nargs="+", choices=sorted(GOALS), default=sorted(GOALS))
    parser.add_argument("--every", action="store_true", help="include weights that a backend has "
                        "no goal for")
    parser.add_argument("--dtype", choices=("f32", "f16", "bf16"), help="dtype of "
                        "cpu_numba's activations (default: f32 for f32 weights, else bf16)")
    parser.add_argument("--no-mmap", action="store_true", help="copy weights to memory instead of "
                        "mapping the file, in both programs")
    parser.add_argument("--layers", type=int, help="run only this many layers")
    parser.add_argument("--prompt", type=int, default=128, help="tokens of the prompt")
    parser.add_argument("--tokens", type=int, default=16, help="tokens to generate in a turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--folder", type=Path, help="keep the GGUF files here")
    parser.add_argument("--no-check", action="store_true", help="skip the comparison with float64")
    parser.add_argument("--profile", action="store_true", help="time each kernel")
    parser.add_argument("--json", type=Path, help="write the rows here")
    args = parser.parse_args()
    print(f"{machine()}; Python {platform.python_version()}, NumPy {np.__version__}; "
          f"{args.threads} threads; medians of {args.rounds} turns, prompt {args.prompt}, "
          f"{args.tokens} tokens; tokens/s: ours, llama.cpp, ratio", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        rows = [row for s in args.shapes for w in args.weights
                for row in compare(s, w, folder, args)]
    print("\n".join(sorted({r["version"] for r in rows} | {r["llama"] for r in rows})))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0 if all(r["ok"] for r in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
