"""Check sliding windows of attention: accept one that changes nothing, refuse any other."""

from __future__ import annotations

from core.errors import ConfigError
from models.json_reader import ConfigReader

_DEFAULT = 4096  # of Mistral and Qwen2 in transformers, where the key is missing; null is none


def check_window(reader: ConfigReader, *, used: bool, first: int = 0) -> None:
    """Raise ConfigError for a window that some position would notice.

    used   whether the family's program looks at `sliding_window` in this configuration
    first  layers without a window, unless `max_window_layers` says it (Qwen2)
    """
    window = reader.get("sliding_window", int, 0) if "sliding_window" in reader.data else _DEFAULT
    positions = reader.size("max_position_embeddings", 2048)
    kinds = reader.get("layer_types", list, ["sliding_attention"])
    full = reader.get("max_window_layers", int, first) >= reader.size("num_hidden_layers")
    if not used or not window or window >= positions or full or "sliding_attention" not in kinds:
        return
    raise ConfigError(f"{reader.where}: sliding_window is {window}, less than the {positions} "
                      "positions; only attention over all of them is supported: set "
                      f"max_position_embeddings to {window} to run within the window")
