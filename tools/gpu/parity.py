"""Greedy tokens of the shipped models against cpu_numpy, in float32: parity.py BACKEND..."""

from __future__ import annotations

import sys

import numpy as np

import models
from models.checkpoint import shipped_models

TOKENS = 100


def main(backends: list[str]) -> int:
    wrong = 0
    for name in shipped_models():
        logits, tokens = {}, {}
        for backend in ("cpu_numpy", *backends):
            with models.load(name, backend=backend, dtype="f32", max_context=512) as model:
                ids = model.encode("Once upon a time")
                ids = (ids * 30)[:90]
                logits[backend] = model.logits(ids)
                generation = model.generate(ids, max_new_tokens=TOKENS)
                generation.stop_ids = frozenset()
                tokens[backend] = generation.run().tokens
        for backend in backends:
            ours, theirs = logits[backend], logits["cpu_numpy"]
            error = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
            equal = tokens["cpu_numpy"] == tokens[backend]
            wrong += not equal or not error < 1e-4
            print(f"{name} on {backend}: {TOKENS} greedy tokens {'equal' if equal else 'DIFFER'}, "
                  f"logits within {error:.1e} of the largest")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
