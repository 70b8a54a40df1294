"""Reads a step's tensors: its inputs, its results, and what it may write in place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from core.plan.lower import Binding
from core.plan.plan import Plan
from core.tensor.tensor import Array


def inputs_of(plan: Plan, binding: Binding) -> dict[str, Array | None]:
    """Return copies of a step's inputs as they are now."""
    return {p.name: plan.read(binding, p.name) for p in binding.op.sig.params}


def results_of(binding: Binding) -> dict[str, Array]:
    """Return a step's results as they are now; host results are not copied."""
    return {k: t.numpy() for k, t in binding.results.items()}


def places_of(binding: Binding) -> Mapping[str, Any]:
    """Return `Op.writes` for a step's current inputs: by input, the index of what it may write."""
    if not binding.op.sig.mutated:
        return {}
    return binding.op.writes({k: t.numpy() for k, t in binding.arguments.items()})


def reversed_floats(array: Array) -> Array:
    """Return a float array's elements in reverse, anything else as it is: other values of the same
    kind, as another step would have. Integers are places and tokens, which have to fit."""
    return array if array.dtype.kind in "iu" else array.reshape(-1)[::-1].reshape(array.shape)


def same_bits(a: Array, b: Array) -> bool:
    """Compare two arrays of one shape and dtype byte by byte."""
    if a.nbytes < 1 << 16:
        return a.tobytes() == b.tobytes()
    x, y = (np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in (a, b))
    return np.array_equal(x, y)


def differing(now: Array, old: Array) -> str:
    """Say how many elements of two arrays have other bits, and where the first is."""
    a, b = (np.ascontiguousarray(x).reshape(-1).view(np.uint8).reshape(x.size, -1)
            for x in (now, old))
    at = np.flatnonzero((a != b).any(axis=1))
    first = [int(i) for i in np.unravel_index(int(at[0]), now.shape)]
    return f"{len(at)} of {now.size} elements, the first at {first}"
