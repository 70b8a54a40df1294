"""Times one sequence by a Session, by an engine, and by a Session of another checkout.

    python tools/serving/e6.py [--model NAME] [--backend NAMES] [--old CHECKOUT] [--rounds 5]

Each run is a fresh process, in turn; medians count. It prints decode tokens/s, each one's share of
the baseline (the other checkout's Session, else this one's), ledgers, and whether all tokens are
equal. Exit code 1: a share is below 98%, or tokens differ.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

LEAST = 0.98
CHILD = """
import json, sys, time
import models
way, name, backend, prompt, new = *sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5])
best = 0.0
def ids_of(size): return [7 * i % size for i in range(1, prompt + 1)]
if way == "session":
    with models.load(name, backend=backend, max_context=prompt + new + 1) as model:
        for _ in range(4):
            done = model.generate(ids_of(model.config.vocab_size), max_new_tokens=new,
                                  temperature=0).run()
            best = max(best, (len(done.tokens) - 1) / done.stats.decode_s)
        tokens, ledger = done.tokens, model.ledger.hash
else:
    with models.load_engine(name, backend=backend, max_context=prompt + new + 1, max_num_seqs=1,
                            enable_prefix_caching=False) as engine:
        params = models.SamplingParams(temperature=0, max_tokens=new)
        for i in range(4):
            engine.add_request(str(i), ids_of(engine.vocab_size), params, streams=False)
            while engine.stats.new_tokens == (before if i else 0):
                engine.step()
            first, start = engine.stats.new_tokens, time.perf_counter()
            while engine.has_unfinished_requests:
                for output in engine.step():
                    tokens = output.outputs[0].token_ids
            before = engine.stats.new_tokens
            best = max(best, (before - first) / (time.perf_counter() - start))
        ledger = engine.ledger.hash
print(json.dumps({"rate": best, "tokens": tokens, "ledger": ledger}))
"""


def run(root: Path, way: str, args: argparse.Namespace) -> dict[str, Any]:
    """Run one way with the modules of a checkout."""
    backends = sorted(p for p in (root / "backends").iterdir() if p.is_dir())
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(
        [*map(str, [root, *backends]), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", CHILD, way, args.model, args.backend,
                           str(args.prompt), str(args.tokens)], env=env, capture_output=True,
                          text=True, cwd="/", check=False)
    if done.returncode:
        sys.exit(f"{root}, {way}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="stories-llama3")
    parser.add_argument("--backend", default="cpu_numpy")
    parser.add_argument("--old", type=Path, metavar="CHECKOUT")
    parser.add_argument("--prompt", type=int, default=48)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    here = Path(__file__).resolve().parents[2]
    ways = [(args.old.resolve(), "session")] if args.old else []
    ways += [(here, "session"), (here, "engine")]
    rounds = [[run(root, way, args) for root, way in ways] for _ in range(args.rounds)]
    rates = [statistics.median(r[i]["rate"] for r in rounds) for i in range(len(ways))]
    same = all(found["tokens"] == rounds[0][0]["tokens"] for r in rounds for found in r)
    print("| one sequence by | decode tokens/s | share | ledger |\n|---|---|---|---|")
    for i, (root, way) in enumerate(ways):
        name = f"{way} of the other checkout" if root != here else way
        print(f"| {name} | {rates[i]:.0f} | {rates[i] / rates[0]:.1%} | "
              f"{rounds[0][i]['ledger']} |")
    print(f"{args.model} on {args.backend}, medians of {args.rounds}: tokens are "
          f"{'equal' if same else 'NOT equal'}")
    return 0 if same and min(rates) >= LEAST * rates[0] else 1


if __name__ == "__main__":
    sys.exit(main())
