"""Compute rotary frequencies: which scaling a model was trained with, and its table."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from core.errors import ConfigError
from core.tensor.tensor import Array


@dataclass(frozen=True)
class RopeConfig:
    """Holds `theta`, a scaling type and that type's numbers by their keys in config.json.

    interleaved  the row order of the weights: pairs (2i, 2i + 1), not (i, i + d/2)
    """

    theta: float
    type: str = "default"
    numbers: Mapping[str, float] = field(default_factory=dict)
    interleaved: bool = False

    @classmethod
    def read(cls, config: Mapping[str, Any], where: str, max_positions: int) -> RopeConfig:
        """Read `rope_theta` and `rope_scaling` (transformers 4) or `rope_parameters` (5).

        Raises ConfigError for a type that is not in ROPE_TYPES: ignoring it would be silently
        wrong.
        """
        older, newer = config.get("rope_scaling"), config.get("rope_parameters")
        if older and newer and older != newer:
            raise ConfigError(f"{where}: rope_scaling and rope_parameters disagree; keep one")
        block = newer or older or {}
        if not isinstance(block, Mapping) or any(isinstance(v, Mapping) for v in block.values()):
            raise ConfigError(f"{where}: rope parameters are {block!r}, expected one flat object")
        kind = block.get("rope_type", block.get("type", "default"))
        if not isinstance(kind, str) or kind not in ROPE_TYPES:
            raise ConfigError(f"{where}: rope type {kind!r} is not supported, expected one of "
                              f"{', '.join(ROPE_TYPES)}")

        def number(key: str, default: float | None) -> float:
            value = block.get(key, default)
            real = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not real or not 0 < value < 2**63:
                raise ConfigError(f"{where}: rope {kind!r} needs a positive {key}, found {value!r}")
            return float(value)

        stated = config.get("rope_theta")
        theta = number("rope_theta", 10000.0 if stated is None else stated)
        numbers = {key: number(key, None) for key in ROPE_TYPES[kind].numbers}
        if ROPE_TYPES[kind].original:
            numbers[_ORIGINAL] = number(_ORIGINAL, config.get(_ORIGINAL, max_positions))
        low, high = numbers.get("low_freq_factor", 0), numbers.get("high_freq_factor", math.inf)
        if low >= high:
            raise ConfigError(f"{where}: rope low_freq_factor {low} must be below "
                              f"high_freq_factor {high}")
        return cls(theta, kind, numbers)


@dataclass(frozen=True)
class RopeType:
    """Describes one scaling.

    numbers      keys of config.json's rope block that must be there, each a positive number
    frequencies  (rope, head_dim) -> float32 [head_dim/2], theta^(-2i/d) scaled
    original     it also needs the original context, `original_max_position_embeddings`
    """

    numbers: tuple[str, ...]
    frequencies: Callable[[RopeConfig, int], Array]
    original: bool = False


def inverse_frequencies(rope: RopeConfig, head_dim: int) -> Array:
    """Return float32 [head_dim/2]: theta^(-2i/d), scaled. Computed in float32, as models were
    trained."""
    return ROPE_TYPES[rope.type].frequencies(rope, head_dim).astype(np.float32)


def plain_frequencies(rope: RopeConfig, head_dim: int) -> Array:
    """Return theta^(-2i/d) (https://arxiv.org/abs/2104.09864)."""
    exponent = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    return (np.float32(1) / np.float32(rope.theta) ** exponent).astype(np.float32)


def _linear(rope: RopeConfig, head_dim: int) -> Array:
    """Divide every frequency by the factor (https://arxiv.org/abs/2306.15595)."""
    return plain_frequencies(rope, head_dim) / np.float32(rope.numbers["factor"])


def _llama3(rope: RopeConfig, head_dim: int) -> Array:
    """Scale as Llama 3.1 does (https://arxiv.org/abs/2407.21783 and its released code).

    Wavelengths longer than original / low_freq_factor are slowed by `factor`, those shorter than
    original / high_freq_factor are kept, the ones between are interpolated.
    """
    low, high = rope.numbers["low_freq_factor"], rope.numbers["high_freq_factor"]
    original, freq = int(rope.numbers[_ORIGINAL]), plain_frequencies(rope, head_dim)
    wavelength = np.float32(2 * math.pi) / freq
    blend = ((np.float32(original) / wavelength - np.float32(low))
             / np.float32(high - low))
    slowed = freq / np.float32(rope.numbers["factor"])
    mixed = (1 - blend) * slowed + blend * freq
    found: Array = np.where(wavelength > original / low, slowed,
                            np.where(wavelength < original / high, freq, mixed))
    return found


_ORIGINAL = "original_max_position_embeddings"
#: rope types by their name in config.json; plugins add theirs with register_rope_types
ROPE_TYPES: dict[str, RopeType] = {
    "default": RopeType((), plain_frequencies),
    "linear": RopeType(("factor",), _linear),
    "llama3": RopeType(("factor", "low_freq_factor", "high_freq_factor"), _llama3, original=True),
}
