"""Arranges the file's tensors as the family wants them: renamed, split and stacked, each when first
read."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from core.errors import CheckpointError
from core.ops.quantized.layouts import Layout, part_names, stored_parts
from core.tensor.tensor import Array
from models.architectures.tensors import Rows, Stack, WeightSpec
from models.checkpoints.lazy import LazyArrays, abstract, abstract_arrays


def arrange(arrays: Mapping[str, Array], quantized: Mapping[str, Layout],
            tensors: Mapping[str, WeightSpec]) -> tuple[Mapping[str, Array],
                                                        Mapping[str, Layout]]:
    """Return arrays and layouts under the names of `tensors`, those of the file where they agree.

    Nothing is read: what `models.plan` and quantising see are shapes until a weight is placed.
    Raises CheckpointError for a source that the file lacks or that is too small.
    """
    moved = {name: spec.source for name, spec in tensors.items()
             if spec.source is not None and not _stored(name, arrays, quantized)}
    if not moved:
        return arrays, quantized
    specs, result, layouts = abstract_arrays(arrays), LazyArrays(), dict(quantized)
    taken = {stored for name in moved for stored in tensors[name].stored_names}
    hidden = taken | stored_parts({n: quantized[n] for n in taken if n in quantized})
    for name in arrays:
        if name not in hidden:
            result.defer({name: specs[name]}, lambda name=name: (arrays[name],))  # type: ignore[misc]
    for name, source in moved.items():
        if isinstance(source, Stack):
            _stack(result, specs, arrays, name, source)
            continue
        rows = source if isinstance(source, Rows) else Rows(source, 0, tensors[name].shape[0])
        parts = ([(name, rows.name)] if rows.name not in quantized else
                 [*zip(*(part_names(n, quantized[rows.name]) for n in (name, rows.name)),
                       strict=True)])
        if rows.name in quantized:
            layouts[name] = quantized[rows.name]
        for part, stored in parts:
            if stored in specs or part == name:
                _slice(result, specs, arrays, part, stored, rows)
    return result, {n: layout for n, layout in layouts.items() if n not in taken or n in tensors}


def _stored(name: str, arrays: Mapping[str, Array],
            quantized: Mapping[str, Layout]) -> bool:
    return name in arrays or name in quantized


def _slice(result: LazyArrays, specs: Mapping[str, Array], arrays: Mapping[str, Array],
           part: str, stored: str, rows: Rows) -> None:
    whole = _find(specs, stored, part)
    if not 0 <= rows.start < rows.stop <= whole.shape[0]:
        raise CheckpointError(f"tensor {part} is rows {rows.start} to {rows.stop} of {stored}, "
                              f"which has {whole.shape[0]}")
    result.defer({part: whole[rows.start:rows.stop]},
                 lambda: (arrays[stored][rows.start:rows.stop],))


def _stack(result: LazyArrays, specs: Mapping[str, Array], arrays: Mapping[str, Array],
           name: str, source: Stack) -> None:
    pieces = [_find(specs, stored, name) for stored in source.names]
    if len({(p.shape, p.dtype) for p in pieces}) != 1:
        raise CheckpointError(f"tensor {name} stacks {len(pieces)} tensors of different shapes or "
                              f"dtypes, such as {source.names[0]}")
    result.defer({name: abstract((len(pieces), *pieces[0].shape), pieces[0].dtype)},
                 partial(_stacked, arrays, source.names))


def _stacked(arrays: Mapping[str, Array], names: tuple[str, ...]) -> tuple[Array]:
    return (np.stack([arrays[name] for name in names]),)


def _find(specs: Mapping[str, Array], stored: str, wanted: str) -> Array:
    if stored not in specs:
        raise CheckpointError(f"tensor {stored}, of which {wanted} is made, is missing; the "
                              f"checkpoint holds {len(specs)} tensors")
    return specs[stored]
