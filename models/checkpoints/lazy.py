"""Makes arrays from a file only when they are read, and arrays with a shape but no memory.

A reader that has to unpack or expand tensors defers that work: what a model will need can then be
planned from the headers alone (models.plan).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np

from core.ops.quantized.quantize import Quantized
from core.tensor.tensor import Array
from models.checkpoints.quantization import Quantization

Make = Callable[[], Sequence[Array]]


class LazyArrays(MutableMapping[str, Array]):
    """Arrays by name; deferred ones are made together when one of them is first read."""

    def __init__(self, arrays: Mapping[str, Array] | None = None) -> None:
        self._arrays: dict[str, Array | None] = dict(arrays or {})
        self._abstract: dict[str, Array] = {}
        self._makers: dict[str, tuple[tuple[str, ...], Make]] = {}

    def defer(self, specs: Mapping[str, Array], make: Make) -> None:
        """`make` gives arrays like the abstract ones in `specs`, in their order."""
        for name, like in specs.items():
            self._arrays[name], self._abstract[name] = None, like
            self._makers[name] = (tuple(specs), make)

    def abstract(self, name: str) -> Array:
        """Return the array if it lies in the file as it is, else one like it without memory."""
        return self._abstract[name] if name in self._abstract else self[name]

    @property
    def deferred(self) -> set[str]:
        """Names of arrays that do not lie in the file as they are."""
        return {name for name, array in self._abstract.items() if is_abstract(array)}

    def __getitem__(self, name: str) -> Array:
        found = self._arrays[name]
        if found is None:
            names, make = self._makers[name]
            for each, array in zip(names, make(), strict=True):
                if each in self._arrays:
                    self._arrays[each] = array
            found = self._arrays[name]
            assert found is not None  # make gave one for each name
        return found

    def __setitem__(self, name: str, array: Array) -> None:
        self._arrays[name] = array
        self._abstract.pop(name, None)

    def __delitem__(self, name: str) -> None:
        del self._arrays[name]
        self._abstract.pop(name, None)

    def __contains__(self, name: object) -> bool:  # the inherited one would make the array
        return name in self._arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


def abstract(shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
    """Return zeros of that shape that share one element's memory."""
    return np.broadcast_to(np.zeros((), dtype), tuple(shape))


def abstract_arrays(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return the mapping's arrays, deferred ones as abstract arrays."""
    if isinstance(arrays, LazyArrays):
        return {name: arrays.abstract(name) for name in arrays}
    return dict(arrays)


def is_abstract(array: Array) -> bool:
    return array.size > 1 and not any(array.strides)


def abstract_cast(array: Array, dtype: np.dtype[Any]) -> Array:
    return abstract(array.shape, dtype)


def abstract_quantize(quantization: Quantization, weight: Array) -> Quantized:
    """Return arrays of the shapes that `quantization.apply` gives, without memory."""
    rows, columns = weight.shape
    one = quantization.probe(columns)
    codes, scales, zeros = (None if a is None else abstract((rows, a.shape[1]), a.dtype)
                            for a in (one.codes, one.scales, one.zeros))
    assert codes is not None and scales is not None  # quantize always gives both
    return Quantized(codes, scales, zeros, one.bits, one.group_size)
