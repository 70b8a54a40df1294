"""Find the sliding window of attention that a configuration asks for."""

from __future__ import annotations

from models.json_reader import ConfigReader

_DEFAULT = 4096  # of Mistral and Qwen2 in transformers, where the key is missing; null is none


def find_window(reader: ConfigReader, *, used: bool, first: int = 0) -> int | None:
    """Return the tokens that a position attends to, itself among them; None for all. Up to so many
    positions, attention over all of them is the same.

    used   whether the family's program looks at `sliding_window` in this configuration
    first  layers without a window, unless `max_window_layers` says it (Qwen2)
    """
    window = reader.get("sliding_window", int, 0) if "sliding_window" in reader.data else _DEFAULT
    kinds = reader.get("layer_types", list, ["sliding_attention"])
    full = reader.get("max_window_layers", int, first) >= reader.size("num_hidden_layers")
    if not used or not window or full or "sliding_attention" not in kinds:
        return None
    return reader.size("sliding_window", window)
