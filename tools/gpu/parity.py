"""Greedy tokens of the shipped models on cuda_cupy against cpu_numpy, both in float32."""

from __future__ import annotations

import sys

import numpy as np

import models
from models.checkpoint import shipped_models

TOKENS = 100


def main() -> int:
    wrong = 0
    for name in shipped_models():
        logits, tokens = {}, {}
        for backend in ("cpu_numpy", "cuda_cupy"):
            with models.load(name, backend=backend, dtype="f32", max_context=512) as model:
                ids = model.encode("Once upon a time")
                ids = (ids * 30)[:90]
                logits[backend] = model.logits(ids)
                generation = model.generate(ids, max_new_tokens=TOKENS)
                generation.stop_ids = frozenset()
                tokens[backend] = generation.run().tokens
        ours, theirs = logits["cuda_cupy"], logits["cpu_numpy"]
        error = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
        equal = tokens["cpu_numpy"] == tokens["cuda_cupy"]
        wrong += not equal or not error < 1e-4
        print(f"{name}: {TOKENS} greedy tokens {'equal' if equal else 'DIFFER'}, logits within "
              f"{error:.1e} of the largest")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
