"""Rotary frequencies: which scaling a model was trained with, and the table that follows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.errors import ConfigError
from core.tensor.tensor import Array

SUPPORTED = ("default", "linear", "llama3")


@dataclass(frozen=True)
class RopeConfig:
    """`theta` and a scaling type, with the numbers of `linear` and `llama3`.

    interleaved  the row order of the weights: pairs (2i, 2i+1), not (i, i + d/2)
    """

    theta: float
    type: str = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_positions: int = 8192
    interleaved: bool = False

    @classmethod
    def read(cls, config: Mapping[str, Any], where: str, max_positions: int) -> RopeConfig:
        """From `rope_theta` and `rope_scaling` (transformers 4) or `rope_parameters` (5).

        Raises ConfigError for a type that is not in SUPPORTED: ignoring it would be silently wrong.
        """
        older, newer = config.get("rope_scaling"), config.get("rope_parameters")
        if older and newer and older != newer:
            raise ConfigError(f"{where}: rope_scaling and rope_parameters disagree; keep one")
        block = newer or older or {}
        if not isinstance(block, Mapping) or any(isinstance(v, Mapping) for v in block.values()):
            raise ConfigError(f"{where}: rope parameters are {block!r}, expected one flat object")
        kind = block.get("rope_type", block.get("type", "default"))
        if kind not in SUPPORTED:
            raise ConfigError(f"{where}: rope type {kind!r} is not supported, expected one of "
                              f"{', '.join(SUPPORTED)}")

        def number(key: str, default: float | None) -> float:
            value = block.get(key, default)
            real = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not real or not 0 < value < 2**63:
                raise ConfigError(f"{where}: rope {kind!r} needs a positive {key}, found {value!r}")
            return float(value)

        stated = config.get("rope_theta")
        theta = number("rope_theta", 10000.0 if stated is None else stated)
        if kind == "default":
            return cls(theta)
        if kind == "linear":
            return cls(theta, kind, number("factor", None))
        low, high = number("low_freq_factor", None), number("high_freq_factor", None)
        if low >= high:
            raise ConfigError(f"{where}: rope low_freq_factor {low} must be below "
                              f"high_freq_factor {high}")
        return cls(theta, kind, number("factor", None), low, high,
                   int(number("original_max_position_embeddings",
                              config.get("original_max_position_embeddings", max_positions))))


def inverse_frequencies(rope: RopeConfig, head_dim: int) -> Array:
    """float32 [head_dim/2]: theta^(-2i/d), scaled.

    llama3 (Llama 3.1, https://arxiv.org/abs/2407.21783 and its released code): wavelengths longer
    than original / low_freq_factor are slowed by `factor`, those shorter than original /
    high_freq_factor are kept, the ones between are interpolated. Computed in float32, as models
    were trained.
    """
    exponent = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    freq = (np.float32(1) / np.float32(rope.theta) ** exponent).astype(np.float32)
    if rope.type == "linear":
        return freq / np.float32(rope.factor)
    if rope.type == "llama3":
        original = rope.original_max_positions
        wavelength = np.float32(2 * math.pi) / freq
        blend = ((np.float32(original) / wavelength - np.float32(rope.low_freq_factor))
                 / np.float32(rope.high_freq_factor - rope.low_freq_factor))
        slowed = freq / np.float32(rope.factor)
        mixed = (1 - blend) * slowed + blend * freq
        freq = np.where(wavelength > original / rope.low_freq_factor, slowed,
                        np.where(wavelength < original / rope.high_freq_factor, freq, mixed))
    return freq.astype(np.float32)
