"""Compute the frequencies of each rope type in float32, and the factor that some put on attention.

Formulas take the numbers that models.architectures.rope has read; a test compares them with
transformers.modeling_rope_utils.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from core.errors import ConfigError
from core.tensor.tensor import Array

if TYPE_CHECKING:
    from models.architectures.rope import RopeConfig

ORIGINAL = "original_max_position_embeddings"


def plain(rope: RopeConfig, head_dim: int) -> Array:
    """Return theta^(-2i/d) (https://arxiv.org/abs/2104.09864)."""
    return (np.float32(1) / _periods(rope, head_dim)).astype(np.float32)


def linear(rope: RopeConfig, head_dim: int) -> Array:
    """Divide every frequency by the factor (https://arxiv.org/abs/2306.15595)."""
    return plain(rope, head_dim) / np.float32(rope.numbers["factor"])


def llama3(rope: RopeConfig, head_dim: int) -> Array:
    """Scale as Llama 3.1 does (https://arxiv.org/abs/2407.21783 and its released code).

    Wavelengths longer than original / low_freq_factor are slowed by `factor`, those shorter than
    original / high_freq_factor are kept, the ones between are interpolated.
    """
    low, high = rope.numbers["low_freq_factor"], rope.numbers["high_freq_factor"]
    original, freq = rope.original, plain(rope, head_dim)
    wavelength = np.float32(2 * math.pi) / freq
    blend = ((np.float32(original) / wavelength - np.float32(low))
             / np.float32(high - low))
    slowed = freq / np.float32(rope.numbers["factor"])
    mixed = (1 - blend) * slowed + blend * freq
    found: Array = np.where(wavelength > original / low, slowed,
                            np.where(wavelength < original / high, freq, mixed))
    return found


def yarn(rope: RopeConfig, head_dim: int) -> Array:
    """Keep the frequencies that turn more than `beta_fast` times in the original context, slow
    those that turn less than `beta_slow` times, blend between (https://arxiv.org/abs/2309.00071).
    """
    def dimension(turns: float) -> float:
        """Return the index, not yet rounded, of the frequency that turns so often."""
        return (head_dim * math.log(rope.original / (turns * 2 * math.pi))
                / (2 * math.log(rope.theta)))

    low, high = (dimension(rope.numbers.get(key, default))
                 for key, default in (("beta_fast", 32.0), ("beta_slow", 1.0)))
    if rope.numbers.get("truncate", 1.0):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    high += 0.001 * (low == high)
    ramp = (np.arange(head_dim // 2, dtype=np.float32) - np.float32(low)) / np.float32(high - low)
    kept = 1 - np.clip(ramp, 0, 1)
    periods = _periods(rope, head_dim)
    slowed = np.float32(1) / (np.float32(extension(rope)) * periods)
    mixed: Array = slowed * (1 - kept) + np.float32(1) / periods * kept
    return mixed


def yarn_attention(rope: RopeConfig) -> float:
    """Return `attention_factor`, else what follows from `mscale` and the factor, as transformers
    reads DeepSeek's keys."""
    n, factor = rope.numbers, extension(rope)

    def temper(scale: float) -> float:
        return 0.1 * scale * math.log(factor) + 1 if factor > 1 else 1.0

    if factor == 1 and "factor" not in n:
        raise ConfigError(f"rope 'yarn' has no factor, and {ORIGINAL} is not below "
                          "max_position_embeddings; state one of them")
    if "attention_factor" in n:
        return n["attention_factor"]
    if "mscale" in n and "mscale_all_dim" in n:
        return temper(n["mscale"]) / temper(n["mscale_all_dim"])
    return temper(1)


def yarn_positions(rope: RopeConfig) -> int:
    """Return the extended context: many files leave max_position_embeddings at the original."""
    return max(rope.positions, int(min(rope.original * extension(rope), 2**31 - 1)))


def longrope(rope: RopeConfig, head_dim: int) -> Array:
    """Divide each frequency by a factor of its own (https://arxiv.org/abs/2402.13753): by
    `short_factor` in a context up to the original one, by `long_factor` in a longer one."""
    name = "long_factor" if rope.context > rope.original else "short_factor"
    factors = rope.lists[name]
    for key, numbers in rope.lists.items():
        if len(numbers) != head_dim // 2:
            raise ConfigError(f"rope 'longrope': {key} has {len(numbers)} numbers, expected "
                              f"head_dim / 2 = {head_dim // 2}")
    found: Array = np.float32(1) / (np.array(factors, np.float32) * _periods(rope, head_dim))
    return found


def longrope_attention(rope: RopeConfig) -> float:
    """Return `attention_factor`, else what follows from the extension of the context."""
    factor = extension(rope)
    if "attention_factor" in rope.numbers:
        return rope.numbers["attention_factor"]
    return math.sqrt(1 + math.log(factor) / math.log(rope.original)) if factor > 1 else 1.0


def extension(rope: RopeConfig) -> float:
    """Return by how much the original context was extended."""
    return rope.numbers.get("factor", rope.positions / rope.original)


def _periods(rope: RopeConfig, head_dim: int) -> Array:
    """Return theta^(2i/d), float32 [head_dim/2]."""
    exponent = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    return np.asarray(np.float32(rope.theta) ** exponent, np.float32)
