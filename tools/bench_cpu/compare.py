"""Our CPU backends beside llama.cpp: the same weights, the same threads, taking turns.

    python tools/bench_cpu/compare.py [--shapes tinyllama-1.1b llama3.2-1b qwen2.5-0.5b]
        [--weights f32 bf16 int8 int4] [--threads 1,2,4,8,16] [--dtype f32] [--no-mmap]
        [--layers N] [--rounds 5] [--profile] [--figures FILE]

Random weights at published shapes (speed does not depend on their values) are exported to GGUF by
our own writer: F32, BF16, Q8_0, Q4_0. llama.cpp and our backends each load that file in a process
of their own, and take turns at a prompt and greedy decoding; medians count. Then our logits, step
by step, are held to llama.cpp's for the same tokens, and every kernel of two layers and the head to
its float64 definition. A row that other programs disturbed is no result, and says so. Without the
package llama-cpp-python ours are measured alone. `tools/performance/page.py --take FILE` puts the
records into docs/performance.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
from engines import LLAMA, Engine
from performance.goals import RATIOS
from performance.records import Record, bandwidth, here, merged, processor, read, write
from performance.tables import line

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
#: share of the processors that other programs may take in the median turn
DISTURBED = 0.05
PAUSE = 0.5  # s before a turn: threads of the one before stay awake for a while, and take time
NO_LLAMA = "llama-cpp-python is not installed"
CORES = len(os.sched_getaffinity(0))
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


def compare(shape: str, kind: str, threads: int, folder: Path, args: argparse.Namespace,
            ) -> list[Record]:
    """Return the records of each of our backends: decode and prefill."""
    path = export(shape, kind, args.layers, folder)
    names = [b for b in args.backends if args.every or kind in RATIOS[b]]
    ids = np.random.default_rng(5).integers(5, SHAPES[shape]["vocab_size"], args.prompt).tolist()
    engines = [Engine(n, path, threads, args.prompt + args.tokens + 8,
                      activations(n, kind, args), mmap=not args.no_mmap)
               for n in (*names, *[LLAMA] * args.llama)]
    ours, llama = engines[:len(names)], engines[-1] if args.llama else None
    turns: dict[str, list[Any]] = {e.name: [] for e in engines}
    for _ in range(args.rounds + 1):
        for engine in engines:
            time.sleep(PAUSE)
            turns[engine.name].append(engine.timed(ids, args.tokens))
    speeds = {n: [statistics.median(t[i] for t in ts[1:]) for i in (0, 1)]
              for n, ts in turns.items()}  # without the first turn, which reads the weights in
    found = []
    for engine in ours:
        ok, verdict = agreement(engine, llama, turns, ids, kind)
        others = max(statistics.median(t[3] for t in turns[e.name][1:])
                     for e in (engine, *[llama] * bool(llama)) if e)
        if others > DISTURBED:
            ok = False
            verdict = f"NOT VALID: other programs took {others:.0%} of the CPU; {verdict}"
        checked = check(shape, kind, threads, folder, engine, args)
        rates = [(args.prompt / prefill, 1 / step) for prefill, step in speeds.values()]
        found += figures(engine, speeds, args, {
            **here(), "model": shape, "weights": kind, "layers": args.layers, "threads": threads,
            "verdict": f"{verdict}; {checked}", "ok": ok, "note": "" if llama else NO_LLAMA,
            "command": command()}, llama and llama.call("facts")["version"], rates[-1])
        print(*map(line, found[-2:]), sep="\n", flush=True)
        if args.profile:
            profile(engine, ids)
    for engine in engines:
        engine.close()
    return found


def figures(engine: Engine, speeds: dict[str, list[float]], args: argparse.Namespace,
            facts: dict[str, Any], llama: str | None, theirs: tuple[float, float]) -> list[Record]:
    """Return the records of one backend. `theirs`: llama.cpp's tokens/s of prompt and decode, if
    `llama`, its version, is there."""
    said, (prefill, step) = engine.call("facts"), speeds[engine.name]
    most, computed = (engine.call(what) for what in ("bandwidth", "arithmetic"))
    flops = args.prompt * said["row_flops"] + said["head_flops"]
    both = {**facts, "backend": engine.name, "sequences": 1, "prompt": args.prompt,
            "tokens": args.tokens, "ledger": said["ledger"], "nbytes": said["bytes"]}
    peers = [{llama.partition(" (")[0]: rate} if llama else {} for rate in theirs]
    return [Record(figure="decode", tokens_per_s=1 / step, seconds=step, peers=peers[1],
                   share=said["bytes"] / step / most if most else None, limit=bandwidth(most),
                   flops=said["row_flops"] + said["head_flops"], **both),
            Record(figure="prefill", tokens_per_s=args.prompt / prefill, seconds=prefill,
                   share=flops / prefill / computed, peers=peers[0], flops=flops,
                   limit=f"{computed / 1e9:.0f} GFLOP/s in f32", **both)]


def command() -> str:
    """Return the command of this run, without the paths of this machine."""
    words = sys.argv[1:]
    for option in ("--figures", "--folder"):
        if option in words:
            del words[words.index(option):words.index(option) + 2]
    return shlex.join(["python", "tools/bench_cpu/compare.py", *words])


def activations(backend: str, kind: str, args: argparse.Namespace) -> str | None:
    """Return our activations' dtype: bf16 where llama.cpp rounds them too, or to 8-bit codes."""
    if backend != "cpu_numba":
        return None
    return args.dtype or ("f32" if kind == "f32" else "bf16")


def agreement(engine: Engine, llama: Engine | None, turns: dict[str, list[Any]], ids: list[int],
              kind: str) -> tuple[bool, str]:
    """Return whether our logits are as near to llama.cpp's as `kind` allows, at every step."""
    generated = [t[2] for t in turns[engine.name]]
    first = generated[0]
    if llama is None:
        same = all(g == first for g in generated)
        return same, "every turn gave the same tokens" if same else "WRONG: not repeatable"
    ours, theirs = (e.call("logits", ids, first) for e in (engine, llama))
    error = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    same = int((ours.argmax(-1) == theirs.argmax(-1)).sum())
    repeatable = all(g == first for g in generated) and ours.argmax(-1).tolist() == first
    ok = error < BOUNDS[kind] and repeatable  # not so for NaN
    return ok, (f"{'ok' if ok else 'WRONG'}: {same}/{len(ours)} greedy tokens, logits within "
                f"{error:.1e} of {BOUNDS[kind]:.0e}{'' if repeatable else ', not repeatable'}")


def check(shape: str, kind: str, threads: int, folder: Path, engine: Engine,
          args: argparse.Namespace) -> str:
    """Check every kernel that was timed, of two layers and the head, against float64."""
    if args.no_check:
        return "kernels not checked"
    path = export(shape, kind, min(2, args.layers or 2), folder)
    small = Engine(engine.name, path, threads, 2 * CHECKED,
                   activations(engine.name, kind, args), mmap=not args.no_mmap)
    said: str = small.call("check", list(range(1, CHECKED + 1)))
    if small.call("kernels") != engine.call("kernels"):
        raise RuntimeError(f"{engine.name}: the check ran other kernels than were timed: "
                           f"{small.call('kernels')}, {engine.call('kernels')}")
    small.close()
    return said


def profile(engine: Engine, ids: list[int]) -> None:
    """Time each kind of kernel of a prefill and of a decode step, run alone."""
    for phase, rows in engine.call("profile", ids).items():
        whole = sum(r.seconds for r in rows)
        print(f"  {phase}: {whole * 1e3:.1f} ms")
        for r in rows[:10]:
            print(f"    {r.node:32s} {r.kernel:30s} x{r.calls:3d} {r.seconds * 1e3:8.2f} ms "
                  f"{r.nbytes / r.seconds / 1e9:6.1f} GB/s "
                  f"{r.flops / r.seconds / 1e9:6.0f} GFLOP/s")


def thread_counts(text: str) -> list[int]:
    """Read N,N,... for argparse."""
    counts = [int(n) for n in text.split(",")]
    if min(counts) > 0:
        return counts
    raise ValueError(text)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shapes", nargs="+", choices=sorted(SHAPES),
                        default=["tinyllama-1.1b", "llama3.2-1b", "qwen2.5-0.5b"])
    parser.add_argument("--weights", nargs="+", choices=sorted(TYPES),
                        default=["f32", "bf16", "int8", "int4"])
    parser.add_argument("--backends", nargs="+", choices=sorted(RATIOS), default=sorted(RATIOS))
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
    parser.add_argument("--threads", type=thread_counts, metavar="N[,N]", default=[CORES],
                        help="one comparison for each count (default: all cores)")
    parser.add_argument("--folder", type=Path, help="keep the GGUF files here")
    parser.add_argument("--no-check", action="store_true", help="skip the comparison with float64")
    parser.add_argument("--profile", action="store_true", help="time each kernel")
    parser.add_argument("--figures", type=Path, help="add the records to this file")
    args = parser.parse_args()
    args.llama = find_spec("llama_cpp") is not None
    print(f"{processor()}; {platform.platform()}; Python {platform.python_version()}, NumPy "
          f"{np.__version__}; medians of {args.rounds} turns, prompt {args.prompt}, "
          f"{args.tokens} tokens{'' if args.llama else '; ' + NO_LLAMA}", flush=True)
    if beyond := [n for n in args.threads if n > CORES]:
        print(f"left out, as there are {CORES} cores: {beyond} threads", flush=True)
    failed = False
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for shape, kind in product(args.shapes, args.weights):
            for threads in (n for n in args.threads if n <= CORES):
                try:
                    records = compare(shape, kind, threads, folder, args)
                except RuntimeError as error:  # an engine's
                    print(f"error: {error}", file=sys.stderr)
                    return 2
                failed |= not all(record.ok for record in records)
                if args.figures:
                    old = read(args.figures) if args.figures.exists() else []
                    write(args.figures, merged(old, records))
            if not args.folder:
                export(shape, kind, args.layers, folder).unlink()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
