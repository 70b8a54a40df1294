"""Compares the tensors that a family declares with those of a file, before any of them is used."""

from __future__ import annotations

from collections.abc import Mapping

from core.errors import CheckpointError
from core.ops.quantized.layouts import Layout
from core.tensor.tensor import Array
from models.architectures.tensors import EMBEDDING, HEAD, WeightSpec
from models.checkpoints.arrange import arrange
from models.checkpoints.base import Checkpoint
from models.checkpoints.lazy import abstract_arrays


def arrange_whole(checkpoint: Checkpoint, tensors: Mapping[str, WeightSpec], *, tied: bool,
                  ) -> tuple[Mapping[str, Array], Mapping[str, Layout]]:
    """Return the file's tensors as `arrange` does, when they are the configured model, whole.

    Raises CheckpointError for a tensor that is missing, misshapen, or has no place in the model.
    Nothing is read.
    """
    arrays, quantized = arrange(checkpoint.arrays, checkpoint.quantized, tensors)
    specs, expected = abstract_arrays(arrays), dict[str, tuple[int, ...]]()
    for name, spec in tensors.items():
        expected |= _parts(name, spec.shape, quantized.get(name))
    head = quantized.get(HEAD)
    if tied and head is not None:  # quantised beside an embedding in full precision
        expected |= _parts(HEAD, tensors[EMBEDDING].shape, head)
    missing = sorted(n for n in expected if n not in specs)
    if missing:
        others = f" with {len(missing) - 1} others" if len(missing) > 1 else ""
        unknown = sorted(n for n in specs if n not in expected)[:3]
        raise CheckpointError(f"{checkpoint.path}: tensor {missing[0]!r} is missing{others}; the "
                              f"checkpoint holds {len(specs)} tensors" + (
                                  f", such as {', '.join(unknown)}: rename them" if unknown
                                  else "; fetch it again"))
    for name, shape in expected.items():
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
    return arrays, quantized


def _parts(name: str, shape: tuple[int, ...], layout: Layout | None,
           ) -> dict[str, tuple[int, ...]]:
    """Return shapes by name of what a file holds for one tensor."""
    if layout is None:
        return {name: shape}
    return {f"{name}.{part}": s.sizes for part, s in layout.parts(*shape).items()}
