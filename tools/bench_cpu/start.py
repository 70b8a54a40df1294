"""Says where the time from `kernelyard run` to the first token goes, and that of quantising.

    python tools/load/measure.py --shape llama3.2-1b --stored bf16 --folder /tmp/checkpoints
    python tools/bench_cpu/start.py /tmp/checkpoints/llama3.2-1b-all-hf-bf16 [--quantize int8]

Each row is a phase of a process of its own: the median of the rounds, in seconds of the clock and
of the processors. The last row is the command itself, from its start to its end after one token.
The first process fills caches, of compiled kernels too, and is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
OPTIONS = {"max_context": 512}
PROMPT = "Once upon a time"


class Phases:
    """Collects (name, seconds of the clock, of the processors) from the process's start."""

    def __init__(self) -> None:
        ticks = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
        self.wall = int(ticks) / os.sysconf("SC_CLK_TCK")
        self.used, self.found = 0.0, list[tuple[str, float, float]]()

    def end(self, name: str, value: T) -> T:
        """Note that a phase ends here; return the value that it has made."""
        wall, used = time.clock_gettime(time.CLOCK_MONOTONIC), time.process_time()
        self.found.append((name, wall - self.wall, used - self.used))
        self.wall, self.used = wall, used
        return value


def child(path: str, backend: str, quantize: str | None) -> None:
    """Do what `kernelyard run` does, phase by phase; print the phases, and the peak in MiB."""
    phases = Phases()
    import numpy  # noqa: F401
    phases.end("Python and NumPy", None)
    import models.run
    from core.runtime.session import Session
    from models.checkpoints.base import read_checkpoint
    from models.engine.load import settle_checkpoint
    from models.engine.memory import check_fits
    from models.engine.model import Model
    from models.engine.options import LoadOptions
    phases.end("our modules", models.run)
    options = LoadOptions(backend, quantize=quantize, **OPTIONS)
    registry = phases.end("plugins", options.registry())
    for name in backend.split(","):
        registry.backend(name)
    phases.end("opening the backends", registry)
    checkpoint = phases.end("headers and tokenizer", read_checkpoint(path, registry))
    config = phases.end("settling", settle_checkpoint(checkpoint, options, registry))
    phases.end("estimating memory", check_fits(config))
    weights = phases.end("converting and quantising", config.weights())
    session = phases.end("plan of a step, packing", Session(
        config.graph, weights, config.policy, chunk=config.chunk,
        vocab_size=config.config.vocab_size, max_context=config.context))
    with Model(config, session) as model:
        phases.end("plan of the prompt, first token",
                   model.generate(PROMPT, max_new_tokens=1).run())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        print(json.dumps([phases.found, peak, model.ledger.hash]))


def command(path: str, backend: str, quantize: str | None) -> tuple[float, float]:
    """Return the seconds of the clock and of the processors of the whole command."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-m", "kernelyard", "run", "--model", path, "--backend",
                    backend, "--max-context", str(OPTIONS["max_context"]), "--prompt", PROMPT,
                    "--max-new-tokens", "1", *(["--quantize", quantize] if quantize else [])],
                   check=True, capture_output=True)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, sum(after[:2]) - sum(before[:2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("path")
    parser.add_argument("--backend", default="cpu_numba,cpu_numpy")
    parser.add_argument("--quantize", choices=("int8", "int4", "int4-symmetric"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.path, args.backend, args.quantize)
        return
    asked = [args.path, "--backend", args.backend,
             *(["--quantize", args.quantize] if args.quantize else [])]
    done = [json.loads(subprocess.run([sys.executable, __file__, *asked, "--child"], check=True,
                                      capture_output=True, text=True).stdout)
            for _ in range(args.rounds + 1)][1:]
    print("| phase | clock, s | processors, s |\n|---|---|---|")
    for same in zip(*(phases for phases, _, _ in done), strict=True):
        wall, used = (statistics.median(p[i] for p in same) for i in (1, 2))
        print(f"| {same[0][0]} | {wall:.2f} | {used:.2f} |")
    runs = [command(args.path, args.backend, args.quantize) for _ in range(args.rounds)]
    wall, used = (statistics.median(r[i] for r in runs) for i in (0, 1))
    print(f"| `kernelyard run`, one token | {wall:.2f} | {used:.2f} |")
    print(f"\npeak memory {max(peak for _, peak, _ in done):,} MiB, mapped pages included; "
          f"ledger {done[0][2]}")


if __name__ == "__main__":
    main()
