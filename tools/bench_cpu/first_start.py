"""Times the start of two checkouts in turn: with no compiled kernels kept, then with them.

    python tools/bench_cpu/first_start.py OLD NEW [--rounds 3] [--model NAME[,OPTION...]]

Each start is a process that reads 20 tokens and makes two, so that it needs the kernels of the
prompt and those of a step, with PYTHONPATH at one checkout. A row gives medians over the rounds:
seconds to the end, CPU seconds of the process itself and of the helpers that it starts. Where
others use the cores too, CPU seconds say more than the clock.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MODELS = ("random:tinyllama-1.1b:f32:2,dtype=f32", "random:tinyllama-1.1b:bf16:2,dtype=bf16",
          "random:tinyllama-1.1b:f32:2,quantize=int8,dtype=bf16",
          "random:tinyllama-1.1b:f32:2,quantize=int4,dtype=bf16")
CHILD = """
import json, resource, sys
import models
name, *options = sys.argv[1].split(",")
with models.load(name, backend="cpu_numba,cpu_numpy", max_context=64,
                 **dict(o.split("=") for o in options)) as model:
    done = model.generate(list(range(1, 21)), max_new_tokens=2).run()
    own, helpers = (sum(resource.getrusage(who)[:2])
                    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(json.dumps([own, helpers, done.tokens, model.ledger.hash]))
"""


def start(root: Path, case: str, cache: str) -> dict:
    """Start once with this cache of machine code."""
    backends = sorted(p for p in (root / "backends").iterdir() if p.is_dir())
    env = {**os.environ, "XDG_CACHE_HOME": cache,
           "PYTHONPATH": os.pathsep.join(map(str, [root, *backends]))}
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", CHILD, case], env=env, capture_output=True,
                          text=True, cwd="/")
    wall = time.perf_counter() - began
    if done.returncode:
        sys.exit(f"{root}: {case} failed:\n{done.stderr[-2000:]}")
    own, helpers, *result = json.loads(done.stdout.splitlines()[-1])
    return {"wall": wall, "own": own, "helpers": helpers, "result": result}


def main() -> None:
    """Print two lines a model."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", action="append", metavar="NAME[,OPTION=VALUE]")
    args = parser.parse_args()
    roots = [args.old.resolve(), args.new.resolve()]
    for case in args.model or MODELS:
        found: dict[tuple[str, int], list[dict]] = {}
        for _ in range(args.rounds):
            for side, root in enumerate(roots):
                with tempfile.TemporaryDirectory() as cache:
                    for kind in ("first", "next"):
                        found.setdefault((kind, side), []).append(start(root, case, cache))
        same = len({json.dumps(s["result"]) for runs in found.values() for s in runs}) == 1
        for kind in ("first", "next"):
            said = []
            for key in ("wall", "own", "helpers"):
                old, new = (statistics.median(s[key] for s in found[kind, side])
                            for side in (0, 1))
                said.append(f"{key} {old:.1f} -> {new:.1f} s")
            print(f"{case} {kind}: {', '.join(said)}; "
                  f"{'same tokens and ledger' if same else 'OTHER TOKENS OR LEDGER'}", flush=True)


if __name__ == "__main__":
    main()
