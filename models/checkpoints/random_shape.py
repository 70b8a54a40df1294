"""Reads a published shape with random weights, under a name that every command takes as a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from core.errors import CheckpointError
from models.architectures.base import Architecture
from models.checkpoints.base import Checkpoint
from models.checkpoints.random import SHAPES, random_checkpoint

STORED = ("f32", "f16", "bf16")


class RandomShape:
    """Reads `random:SHAPE[:DTYPE[:LAYERS]]`, such as `random:llama3.2-1b:bf16:2`.

    For speed, memory and kernels at real shapes: there is no tokenizer, so prompts are token ids.
    The dtype is that of the stored weights (default f32); layers, fewer than the shape has.
    """

    name = "random weights (random:SHAPE[:DTYPE[:LAYERS]])"
    key = "random"
    files = False

    def recognises(self, path: Path) -> bool:
        return False  # no file is random weights

    def read(self, path: Path, families: Mapping[str, Architecture]) -> Checkpoint:
        shape, _, rest = str(path).partition(":")
        stored, _, layers = rest.partition(":")
        stored = stored or STORED[0]
        if shape not in SHAPES or stored not in STORED or not (layers.isdecimal() or not layers) \
                or layers == "0":
            raise CheckpointError(
                f"random:{path}: expected random:SHAPE[:DTYPE[:LAYERS]] with a shape of "
                f"{', '.join(SHAPES)}, a dtype of {', '.join(STORED)} and at least one layer")
        return random_checkpoint(shape, stored, layers=int(layers) if layers else None)
