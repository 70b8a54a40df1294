"""Writes what clients are tried against: an address, a key, and what the model itself computes.

    python tools/clients/prepare.py URL KEY MODEL FILE
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

import models
from models.checkpoints.base import SHIPPED

QUESTIONS = Path(__file__).with_name("lm_eval_tasks") / "questions.jsonl"


def loglikelihood(model: models.Model, context: str, continuation: str) -> tuple[float, bool]:
    """Return the sum of log-probabilities of a continuation, and whether it is greedy.

    lm-eval splits the tokens of both where those of the context end.
    """
    start = len(model.tokenizer.encode(context))
    ids = model.tokenizer.encode(context + continuation)
    logits = model.logits(ids).astype(np.float64)
    total, greedy = 0.0, True
    for position in range(start, len(ids)):
        row = logits[position - 1]
        top = row.max()
        total += float(row[ids[position]] - top - np.log(np.exp(row - top).sum()))
        greedy &= bool(row[ids[position]] == top)
    return total, greedy


def main() -> None:
    url, key, name, file = sys.argv[1:]
    questions = [json.loads(line) for line in QUESTIONS.read_text().splitlines()]
    pairs, generated = [], []
    with models.load(name, dtype="f32") as model:
        for question in questions:
            for answer in question["a"]:
                pair = question["q"], f" {answer}"
                pairs.append([*pair, *loglikelihood(model, *pair)])
            text = model.generate(question["q"], max_new_tokens=8).run().text
            generated.append([question["q"], text])
    Path(file).write_text(json.dumps({
        "url": url, "key": key, "model": name, "folder": str(SHIPPED / name),
        "loglikelihood": pairs, "generated": generated}))


if __name__ == "__main__":
    main()
