"""Makes seeded inputs for an op at given shapes, such as those of a model's plan.

Floats are normal numbers, scaled so that products stay near 1. Integers mean something: tokens,
positions, places in a cache. The ops name them alike, so one rule a name makes them for all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from core.errors import OpError
from core.ir.examples import ExampleInputs
from core.ir.op import Op, Specs
from core.tensor.dtype import i4x2
from core.tensor.tensor import Array, TensorSpec

#: sampling at values with which every step of it counts
SAMPLING = {"temperature": 0.8, "top_p": 0.9, "min_p": 0.05, "penalty": 1.3}


def make_inputs(op: Op, specs: Specs, attrs: Mapping[str, Any], context: int, r: ExampleInputs,
                ) -> dict[str, Array | None]:
    """Return arrays of these shapes; floats as float64, to be rounded to the call's dtypes.

    context  tokens of each sequence, this step's included
    Raises OpError for an integer input whose meaning is not known.
    """
    maker = _Maker(op, specs, attrs, context, r)
    return {name: None if spec is None else maker.make(name, spec)
            for name, spec in specs.items()}


class _Maker:
    def __init__(self, op: Op, specs: Specs, attrs: Mapping[str, Any], context: int,
                 r: ExampleInputs) -> None:
        self.op, self.specs, self.attrs, self.context, self.r = op, specs, attrs, context, r
        self.integers: dict[str, Callable[[int], Array]] = {
            "ids": self._ids, "token": lambda n: r.ints(0, self._size("logits", 1), n),
            "given": lambda n: r.ints(-self._size("last"), 1000, n),
            "last": lambda n: r.ints(0, 1000, n),
            "places": lambda n: r.rng.permutation(max(n, self._size("last")))[:n],
            "starts": lambda n: np.arange(n) * self._size("ids") // max(1, n - 1),
            "mask": lambda n: r.ints(-2**31, 2**31 - 1, n), "positions": self._positions,
            "slots": self._positions, "block_table": r.rng.permutation,
            "seq_lens": lambda n: np.full(n, context), "top_k": lambda n: np.full(n, 20),
            "query_starts": self._starts, "seen": lambda n: r.ints(0, 2, n),
            "seeds": lambda n: r.ints(-2**31, 2**31 - 1, n)}

    def make(self, name: str, spec: TensorSpec) -> Array:
        shape, count = spec.sizes, int(np.prod(spec.sizes))
        if spec.dtype.is_float:
            return self._floats(name, shape)
        if name in self.integers:
            return self.integers[name](count).reshape(shape).astype(spec.dtype.numpy)
        if name in self.op.weight_params or name == "cache":  # codes
            low, high = (0, 256) if spec.dtype == i4x2 else (-127, 128)
            return self.r.rng.integers(low, high, shape, dtype=spec.dtype.numpy)
        raise OpError(f"{self.op.name}: what its integer input `{name}` means is not known, so no "
                      "values can be made for it; known: " + ", ".join(self.integers))

    def _floats(self, name: str, shape: tuple[int, ...]) -> Array:
        r = self.r
        if name in SAMPLING:
            return np.full(shape, SAMPLING[name])
        if name == "logits" and "temperature" in self.specs:
            # levels, so that probabilities stay far from each other's cumulative borders
            return r.ints(-6, 7, *shape).astype(np.float64)
        if name == "penalties":
            return np.asarray(1 + abs(r.normal(*shape)))
        if name == "inv_freq":
            return np.asarray(10000.0 ** (-np.arange(shape[0]) / shape[0]))
        if name == "cache_scales":
            return np.asarray((abs(r.normal(*shape)) + 0.1) / 64)
        if name.endswith("scales"):
            columns = shape[1] * self.attrs["group_size"]
            peak = 64 if self.attrs["bits"] == 8 else 4
            return np.asarray((0.5 + abs(r.normal(*shape))) * columns**-0.5 / peak)
        if name.endswith("zeros"):
            return r.ints(0, 16, *shape).astype(np.float64)
        if name in self.op.weight_params:
            return r.normal(*shape, scale=shape[-1]**-0.5) if len(shape) > 1 else 1 + r.normal(
                *shape)
        return r.normal(*shape)

    def _size(self, name: str, axis: int = 0) -> int:
        """Return the size of another input, 1000 where there is none."""
        spec = self.specs.get(name)
        return spec.sizes[axis] if spec is not None else 1000

    def _ids(self, count: int) -> Array:
        """Return tokens: any rows of a table, or else distinct ones, as a row of logits has them
        changed."""
        for table in ("table", "codes"):
            if table in self.specs:
                return self.r.ints(0, self._size(table), count)
        return self.r.rng.permutation(max(count, self._size("logits", 1)))[:count]

    def _positions(self, count: int) -> Array:
        """Return the last places of the context; all sequences of a decode step are at its end."""
        first = max(0, self.context - count)
        return np.arange(first, first + count)

    def _starts(self, count: int) -> Array:
        """Return borders between sequences with equally many queries."""
        q = self.specs["q"]
        return np.arange(count) * (q.sizes[0] if q is not None else 0) // max(1, count - 1)
