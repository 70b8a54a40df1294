"""Read which rope scaling a model was trained with, and give its table of frequencies."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from core.errors import ConfigError
from core.reading import shown
from core.tensor.tensor import Array
from models.architectures import rope_formulas as formulas
from models.architectures.rope_formulas import ORIGINAL


@dataclass(frozen=True)
class RopeConfig:
    """Holds `theta`, a scaling type and that type's numbers by their keys in config.json.

    interleaved  the row order of the weights: pairs (2i, 2i + 1), not (i, i + d/2)
    lists        the type's lists of numbers
    positions    max_position_embeddings of the file
    context      tokens that the KV cache holds; 0 where no model is loaded
    """

    theta: float
    type: str = "default"
    numbers: Mapping[str, float] = field(default_factory=dict)
    interleaved: bool = False
    lists: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    positions: int = 0
    context: int = 0

    @property
    def original(self) -> int:
        """Return the context that the model was trained for before it was extended, in tokens."""
        return int(self.numbers.get(ORIGINAL, self.positions))

    @property
    def scaling(self) -> RopeType:
        """Return the description of the type."""
        return ROPE_TYPES[self.type]

    @property
    def attention_factor(self) -> float:
        """Return the factor on cos and sin; attention's scale takes its square. Raises ConfigError
        if the numbers give none."""
        if self.scaling.attention is None:
            return 1.0
        try:
            found = self.scaling.attention(self)
        except (ArithmeticError, ValueError):
            found = math.nan
        if not 1e-6 < found < 1e6:
            raise ConfigError(f"{self} has an attention factor of {found:g}, expected 1e-6 to 1e6; "
                              "correct these numbers, or state attention_factor")
        return found

    def __str__(self) -> str:
        numbers = "".join(f", {key} {value:g}" for key, value in self.numbers.items())
        return f"rope {self.type!r} with theta {self.theta:g}{numbers}"

    @classmethod
    def read(cls, config: Mapping[str, Any], where: str, max_positions: int) -> RopeConfig:
        """Read `rope_theta` and `rope_scaling` (transformers 4) or `rope_parameters` (5).

        Raises ConfigError for a type that is not in ROPE_TYPES: ignoring it would be silently
        wrong. Likewise for numbers from which nothing can be computed.
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
        if block.get("partial_rotary_factor") not in (None, 1):
            raise ConfigError(f"{where}: rope partial_rotary_factor is "
                              f"{shown(block['partial_rotary_factor'])}, only 1.0 is supported")

        def number(key: str, default: object = None) -> float:
            value = block.get(key, default)
            if not _positive(value):
                raise ConfigError(f"{where}: rope {kind!r} needs a positive {key}, found "
                                  f"{shown(value)}")
            return float(value)

        described, stated = ROPE_TYPES[kind], config.get("rope_theta")
        theta = number("rope_theta", 10000.0 if stated is None else stated)
        numbers = {key: number(key) for key in described.numbers}
        numbers |= {key: number(key) for key in described.optional if block.get(key) is not None
                    and not (key in _ZERO_IS_NONE and block[key] == 0)}
        for key in described.flags:
            if not isinstance(block.get(key, True), bool):
                raise ConfigError(f"{where}: rope {key} is {shown(block[key])}, expected true or "
                                  "false")
            numbers[key] = float(block.get(key, True))
        if described.original:
            beside = config.get(ORIGINAL)
            numbers[ORIGINAL] = number(ORIGINAL, max_positions if beside is None else beside)
            if beside is not None and beside != numbers[ORIGINAL]:
                raise ConfigError(f"{where}: {ORIGINAL} is {numbers[ORIGINAL]:g} among the rope "
                                  f"parameters, {shown(beside)} beside them; keep one")
        low, high = numbers.get("low_freq_factor", 0), numbers.get("high_freq_factor", math.inf)
        if low >= high:
            raise ConfigError(f"{where}: rope low_freq_factor {low} must be below "
                              f"high_freq_factor {high}")
        lists = {}
        for key in described.lists:
            values = block.get(key)
            if not isinstance(values, list) or not all(_positive(v) for v in values):
                raise ConfigError(f"{where}: rope {kind!r} needs a list of positive numbers "
                                  f"{key}, found {shown(values)}")
            lists[key] = tuple(float(v) for v in values)
        rope = cls(theta, kind, numbers, lists=lists, positions=max_positions)
        _ = rope.attention_factor  # says now whether there is one
        return rope


#: keys whose 0 is a missing one, as transformers reads them (`get(key) or default`)
_ZERO_IS_NONE = frozenset(("beta_fast", "beta_slow", "mscale", "mscale_all_dim"))


def _positive(value: object) -> bool:
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return real and 0 < value < 2**63  # type: ignore[operator]


@dataclass(frozen=True)
class RopeType:
    """Describes one scaling.

    numbers      keys of config.json's rope block that must be there, each a positive number
    frequencies  (rope, head_dim) -> float32 [head_dim/2], theta^(-2i/d) scaled
    original     it also needs the original context, `original_max_position_embeddings`
    optional     keys of positive numbers that may be missing; `rope.numbers` has those found
    flags        keys of true (also where missing) or false; `rope.numbers` has 1.0 or 0.0
    lists        keys that must be there, each a list of positive numbers
    attention    rope -> factor on cos and sin. Attention's scale takes its square, which is equal
                 where the whole of each head of q and k is rotated
    positions    rope -> the most positions; None: max_position_embeddings
    limit        why more positions than those cannot be right, for the error
    switches     its table differs in a `rope.context` beyond the original one
    """

    numbers: tuple[str, ...]
    frequencies: Callable[[RopeConfig, int], Array]
    original: bool = False
    optional: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    attention: Callable[[RopeConfig], float] | None = None
    positions: Callable[[RopeConfig], int] | None = None
    limit: str = ""
    switches: bool = False


def inverse_frequencies(rope: RopeConfig, head_dim: int) -> Array:
    """Return float32 [head_dim/2]: theta^(-2i/d), scaled. Computed in float32, as models were
    trained. Raises ConfigError where the numbers give no finite ones."""
    try:
        with np.errstate(all="ignore"):
            found: Array = rope.scaling.frequencies(rope, head_dim).astype(np.float32)
    except (ArithmeticError, ValueError):
        found = np.array([np.nan], np.float32)
    if not (np.abs(found) < _LARGEST).all():  # also false for NaN
        raise ConfigError(f"{rope} gives frequencies up to {found.max():g}, expected angles that "
                          "float32 holds; correct these numbers")
    return found


_LARGEST = 1e28  # times any 32-bit position, float32 holds it
#: rope types by their name in config.json; plugins add theirs with register_rope_types
ROPE_TYPES: dict[str, RopeType] = {
    "default": RopeType((), formulas.plain),
    "linear": RopeType(("factor",), formulas.linear),
    "llama3": RopeType(("factor", "low_freq_factor", "high_freq_factor"), formulas.llama3,
                       original=True),
    "dynamic": RopeType(("factor",), formulas.plain, limit=(
        "rope 'dynamic' would change its frequencies there with each token, and keys in the cache "
        "have older ones")),
    "yarn": RopeType(
        (), formulas.yarn, original=True, flags=("truncate",), attention=formulas.yarn_attention,
        optional=("factor", "beta_fast", "beta_slow", "attention_factor", "mscale",
                  "mscale_all_dim"), positions=formulas.yarn_positions),
    "longrope": RopeType(
        (), formulas.longrope, original=True, optional=("factor", "attention_factor"),
        lists=("short_factor", "long_factor"), attention=formulas.longrope_attention,
        switches=True),
}
