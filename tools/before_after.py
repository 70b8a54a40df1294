"""Times two checkouts in turn, so that a change of structure shows what it cost.

    python tools/before_after.py OLD NEW [--rounds 5] [--backend NAMES] [--case MODEL:PROMPT:NEW]

Each case is a fresh process with PYTHONPATH at one checkout; entry points come from what is
installed. It prints decode and prefill tokens/s (medians of the rounds), their ratio, whether all
runs gave the same tokens, and both ledgers' hashes.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

CASES = ("stories-llama2:48:120", "stories-llama3:48:120", "stories-qwen2:48:120",
         "random:qwen2.5-0.5b:bf16:4:128:64", "random:tinyllama-1.1b:f32:3:128:64")
CHILD = """
import json, sys
import models
name, backend, prompt, new = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
with models.load(name, backend=backend, max_context=prompt + new + 1) as model:
    ids = [7 * i % model.config.vocab_size for i in range(1, prompt + 1)]
    best = [0.0, 0.0]
    for _ in range(4):
        done = model.generate(ids, max_new_tokens=new).run()
        rates = [prompt / done.stats.prefill_s, (len(done.tokens) - 1) / done.stats.decode_s]
        best = [max(pair) for pair in zip(best, rates)]
    print(json.dumps({"prefill": best[0], "decode": best[1], "tokens": done.tokens,
                      "hash": model.ledger.hash}))
"""


def run(root: Path, case: str, backend: str) -> dict:
    """Run a case with the modules of a checkout."""
    name, prompt, new = case.rsplit(":", 2)
    backends = sorted(p for p in (root / "backends").iterdir() if p.is_dir())
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(
        [*map(str, [root, *backends]), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", CHILD, name, backend, prompt, new], env=env,
                          capture_output=True, text=True, cwd="/")
    if done.returncode:
        sys.exit(f"{root}: {case} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Print a line a case."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--backend", default="cpu_numpy")
    parser.add_argument("--case", action="append", metavar="MODEL:PROMPT:NEW")
    args = parser.parse_args()
    roots = [args.old.resolve(), args.new.resolve()]
    for case in args.case or CASES:
        rounds = [[run(root, case, args.backend) for root in roots] for _ in range(args.rounds)]
        said = []
        for key in ("decode", "prefill"):
            old, new = (statistics.median(r[i][key] for r in rounds) for i in (0, 1))
            said.append(f"{key} {old:.0f} -> {new:.0f} ({new / old:.3f})")
        same = len({tuple(side["tokens"]) for r in rounds for side in r}) == 1
        print(f"{case} {args.backend}: {', '.join(said)}; "
              f"{'same tokens' if same else 'OTHER TOKENS'}; ledgers "
              f"{rounds[0][0]['hash']} {rounds[0][1]['hash']}", flush=True)


if __name__ == "__main__":
    main()
