"""Examples: hold the inputs that exercise an op, and those that it must reject."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.errors import KernelyardError
from core.tensor.dtype import as_dtype
from core.tensor.tensor import Array, TensorSpec


class ExampleInputs:
    """Makes seeded inputs for examples: floats come as float64, to be rounded to the case's
    dtype."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def normal(self, *shape: int, scale: float = 1.0) -> Array:
        return self.rng.standard_normal(shape, np.float32).astype(np.float64) * scale

    def ints(self, low: int, high: int, *shape: int) -> Array:
        """Return integers in low..high-1."""
        return self.rng.integers(low, high, shape, dtype=np.int32)

    def codes(self, bits: int, rows: int, columns: int) -> Array:
        """Return quantised codes of a [rows, columns] matrix: int8, or uint8 with two nibbles."""
        if bits == 8:
            return self.rng.integers(-127, 128, (rows, columns), dtype=np.int8)
        return self.rng.integers(0, 256, (rows, (columns + 1) // 2), dtype=np.uint8)


@dataclass(frozen=True)
class Example:
    """Holds one set of inputs. `large` ones need gigabytes; `only` keeps to matching dtype
    cases."""

    name: str
    make: Callable[[ExampleInputs], dict[str, Array | None]]
    attrs: dict[str, Any]
    large: bool = False
    only: Mapping[str, str] | None = None


@dataclass(frozen=True)
class ErrorExample:
    """Holds specs that `infer` must reject with `error`, whose message contains `match`."""

    inputs: Mapping[str, TensorSpec | None]
    attrs: dict[str, Any]
    error: type[KernelyardError]
    match: str


def spec(text: str) -> TensorSpec:
    """Return a TensorSpec from text such as "f32[2,3]"."""
    dtype, _, dims = text.rstrip("]").partition("[")
    return TensorSpec(tuple(int(d) if d.isdigit() else d for d in dims.split(",") if d),
                      as_dtype(dtype))


def uniform(*variables: str) -> tuple[dict[str, str], ...]:
    """Return one case for each of f32, f16 and bf16, with all the variables alike."""
    return tuple(dict.fromkeys(variables, d) for d in ("f32", "f16", "bf16"))
