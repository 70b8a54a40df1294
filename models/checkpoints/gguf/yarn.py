"""Translates GGUF's keys of yarn to those of config.json, and back.

llama.cpp's converter writes them from config.json. llama.cpp itself reads `attn_factor` and
`yarn_log_multiplier`, so an attention factor other than the usual one is written as the first.
"""

from __future__ import annotations

from typing import Any

from core.errors import ConfigError
from core.reading import shown
from models.architectures.rope import RopeConfig
from models.architectures.rope_formulas import ORIGINAL
from models.json_reader import ConfigReader

YARN, PREFIX = "yarn", "rope.scaling."
#: key of GGUF -> key of config.json
NUMBERS = {"original_context_length": ORIGINAL, "yarn_beta_fast": "beta_fast",
           "yarn_beta_slow": "beta_slow", "yarn_attn_factor": "attention_factor"}
_LOG, _ATTENTION = "yarn_log_multiplier", "attn_factor"


def read_yarn(meta: ConfigReader, short: str | None, factor: float, theta: float,
              context: int) -> dict[str, Any]:
    """Return the rope block of config.json. Raises ConfigError without a factor."""
    def key(name: str) -> str:
        return f"{short}.{PREFIX}{name}"
    if not factor > 1:
        raise ConfigError(f"{meta.where}: rope scaling 'yarn' needs {key('factor')}, found "
                          f"{factor:g}, expected more than 1")
    block: dict[str, Any] = {"rope_type": YARN, "factor": factor}
    for name, other in NUMBERS.items():
        if (value := meta.get(key(name), float, None)) is not None:
            block[other] = value
    block.setdefault(ORIGINAL, context)
    if block[ORIGINAL] != int(block[ORIGINAL]):
        raise ConfigError(f"{meta.where}: {key('original_context_length')} is "
                          f"{shown(block[ORIGINAL])}, expected a number of tokens")
    block[ORIGINAL] = int(block[ORIGINAL])
    if log := meta.get(key(_LOG), float, 0.0):
        block |= {"mscale": 1.0, "mscale_all_dim": log}
    if (more := meta.get(key(_ATTENTION), float, 1.0)) != 1:
        rope = RopeConfig.read({"rope_theta": theta, "rope_parameters": block}, meta.where, context)
        block["attention_factor"] = rope.attention_factor * more
    return block


def write_yarn(writer: Any, gguf: Any, rope: RopeConfig) -> None:  # noqa: ANN401 - gguf's classes
    """Write the keys. Raises ConfigError for numbers that GGUF has no keys for."""
    if rope.numbers.get("truncate", 1.0) != 1:
        raise ConfigError(f"{rope} does not round the range that it blends (truncate: false), "
                          "which GGUF cannot say; export to hf instead")
    factor = rope.numbers.get("factor", rope.positions / rope.original)
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(factor)
    writer.add_rope_scaling_orig_ctx_len(rope.original)
    for name in ("beta_fast", "beta_slow"):
        if name in rope.numbers:
            getattr(writer, f"add_rope_scaling_yarn_{name}")(rope.numbers[name])
    usual = RopeConfig(rope.theta, YARN, {"factor": factor, ORIGINAL: rope.original})
    if (ratio := rope.attention_factor / usual.attention_factor) != 1:
        writer.add_rope_scaling_attn_factors(ratio)
