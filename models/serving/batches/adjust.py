"""Finds what a request changes about its logits before a token is sampled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from core.runtime.batch import Adjustments
from models.serving.grammar.state import fill_masks
from models.serving.request import Request

_NONE = (np.zeros(0, np.int32), np.ones(0, np.float32), np.zeros(0, np.float32))


def find_adjustments(requests: Sequence[Request | None]) -> Adjustments | None:
    """Return what changes the logits of these rows, None where nothing does. A row of None is that
    of a prompt's token, from which nothing is sampled."""
    if not any(r is not None and r.adjusts for r in requests):
        return None
    rows = [_NONE if r is None else _row(r) for r in requests]
    ids, penalties, add = (np.concatenate(part) for part in zip(*rows, strict=True))
    starts = np.cumsum([0, *(len(row[0]) for row in rows)]).astype(np.int32)
    mask = fill_masks([None if r is None else r.grammar for r in requests])
    return Adjustments(starts, ids, penalties, add, mask)


def _row(request: Request) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ids i32, penalties f32 and what is added, f32, for the next token of a request."""
    params, prompt = request.params, request.prompt_len
    add, penalties = dict(params.logit_bias or {}), dict[int, float]()
    if params.repetition_penalty != 1:
        penalties = dict.fromkeys(request.ids, params.repetition_penalty)
    if params.presence_penalty or params.frequency_penalty:
        for token, count in Counter(request.ids[prompt:]).items():
            add[token] = (add.get(token, 0.0) - params.presence_penalty
                          - count * params.frequency_penalty)
    if request.total - 1 - prompt < params.min_tokens:  # `total` counts the token to be sampled
        add.update(dict.fromkeys(request.stop_ids, -np.inf))
    ids = list(add | penalties)
    return (np.array(ids, np.int32),
            np.array([penalties.get(i, 1.0) for i in ids], np.float32),
            np.array([add.get(i, 0.0) for i in ids], np.float32))
