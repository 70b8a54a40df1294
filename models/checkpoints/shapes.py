"""Compares the tensors that a family declares with those of a file, before any of them is used."""

from __future__ import annotations

from collections.abc import Mapping

from core.errors import CheckpointError
from core.ops.quantized.layouts import Layout
from models.architectures.tensors import EMBEDDING, HEAD, WeightSpec
from models.checkpoints.arrange import arrange
from models.checkpoints.base import Checkpoint
from models.checkpoints.lazy import abstract_arrays


def check_shapes(checkpoint: Checkpoint, tensors: Mapping[str, WeightSpec], *, tied: bool) -> None:
    """Raise CheckpointError for a tensor that is missing, misshapen, or has no place in the
    configured model. Nothing is read."""
    arrays, quantized = arrange(checkpoint.arrays, checkpoint.quantized, tensors)
    specs, expected = abstract_arrays(arrays), dict[str, tuple[int, ...]]()
    for name, spec in tensors.items():
        expected |= _parts(name, spec.shape, quantized.get(name))
    head = quantized.get(HEAD)
    if tied and head is not None:  # quantised beside an embedding in full precision
        expected |= _parts(HEAD, tensors[EMBEDDING].shape, head)
    for name, shape in expected.items():
        if name not in specs:
            raise CheckpointError(f"{checkpoint.path}: tensor {name} is missing; the checkpoint "
                                  f"holds {len(specs)} tensors")
        if specs[name].shape != shape:
            raise CheckpointError(f"{checkpoint.path}: tensor {name} has shape "
                                  f"{list(specs[name].shape)}, the configuration asks for "
                                  f"{list(shape)}")
    unused = sorted(n for n in specs if n not in expected and not n.endswith("rotary_emb.inv_freq")
                    and not (tied and n == HEAD))
    if unused:
        raise CheckpointError(
            f"{checkpoint.path}: {len(unused)} tensors have no place in the configured model, such "
            f"as {', '.join(unused[:4])}; config.json does not describe these weights")


def _parts(name: str, shape: tuple[int, ...], layout: Layout | None,
           ) -> dict[str, tuple[int, ...]]:
    """Return shapes by name of what a file holds for one tensor."""
    if layout is None:
        return {name: shape}
    return {f"{name}.{part}": s.sizes for part, s in layout.parts(*shape).items()}
