"""Bounds for the numbers that a file states about its model, checked before anything follows them.

They lie far above every published model. Whether a number is right is decided by the shapes of the
tensors (models/checkpoints/shapes.py); a bound only keeps a wrong one from taking memory first.
"""

from __future__ import annotations

from core.errors import ConfigError, TokenizerError
from models.json_reader import ConfigReader

#: config.json's keys, which every reader translates its own names into
LIMITS = {"hidden_size": 1 << 20, "intermediate_size": 1 << 22, "num_hidden_layers": 4096,
          "num_attention_heads": 1 << 14, "num_key_value_heads": 1 << 14, "head_dim": 1 << 14,
          "vocab_size": 1 << 24, "max_position_embeddings": 1 << 27}


def check_numbers(config: ConfigReader) -> None:
    """Raise ConfigError for a number that no model can have."""
    for key, limit in LIMITS.items():
        value = config.data.get(key)
        if isinstance(value, int) and value > limit:
            raise ConfigError(f"{config.where}: {key} is {value}, expected at most {limit}; the "
                              "file is damaged: fetch it again")


def check_vocabulary(size: int, where: str) -> None:
    """Raise TokenizerError for a tokenizer with an id that no model can have."""
    if size > LIMITS["vocab_size"]:
        raise TokenizerError(f"{where}: the tokenizer has an id of {size - 1}, expected less than "
                             f"{LIMITS['vocab_size']}; its files are damaged: fetch them again")
