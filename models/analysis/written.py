"""Checks that a written model, loaded again, computes what the one that it was made from does."""

from __future__ import annotations

import numpy as np

from core.errors import CheckError
from core.installed.registry import Registry
from models.checkpoints.base import Checkpoint, read_checkpoint
from models.checkpoints.targets import Target
from models.engine.load import open_checkpoint
from models.engine.options import LoadOptions

#: The largest difference of logits, as a part of the largest logit, by what was written: rounding
#: of sums in another order for f32; then the format's step through the layers of a model.
BOUNDS = {"f32": 1e-4, "f16": 1e-2, "bf16": 5e-2, "int8": 0.15, "int4": 0.6}
_PROMPT = 32  # tokens


def verify_written(before: Checkpoint, written: str, target: Target, registry: Registry) -> str:
    """Compare logits after each of 32 tokens. Raises CheckError beyond BOUNDS."""
    after = read_checkpoint(written, registry)
    logits = []
    for checkpoint in (before, after):
        with open_checkpoint(checkpoint, LoadOptions(dtype="f32"), registry) as model:
            count = min(_PROMPT, model.session.max_context)
            ids = np.random.default_rng(0).integers(0, model.config.vocab_size, count)
            logits.append(model.logits(ids.tolist()))
    worst = float(np.abs(logits[0] - logits[1]).max() / np.abs(logits[0]).max())
    same = float((logits[0].argmax(-1) == logits[1].argmax(-1)).mean())
    said = (f"logits differ by at most {worst:.1e} of the largest, {same:.0%} of greedy tokens "
            "agree")
    if not worst <= BOUNDS[target.precision]:
        raise CheckError(f"the written model was reloaded and its {said}; expected at most "
                         f"{BOUNDS[target.precision]:g} for {target.precision}. Nothing was "
                         "written; --no-verify keeps it nevertheless")
    return said
