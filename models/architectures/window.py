"""Find the sliding window of attention that a configuration asks for."""

from __future__ import annotations

from models.json_reader import ConfigReader

_DEFAULT = 4096  # of Mistral and Qwen2 in transformers, where the key is missing; null is none


def find_window(reader: ConfigReader, *, used: bool, by_layer: bool = False) -> int | None:
    """Return the tokens that a position attends to, itself among them; None for all. Up to so many
    positions, attention over all of them is the same.

    used      whether the family's program looks at `sliding_window` in this configuration
    by_layer  whether it looks at which layers have a window (Qwen2); else all have it (Mistral)
    """
    window = reader.get("sliding_window", int, 0) if "sliding_window" in reader.data else _DEFAULT
    if not used or not window or (by_layer and not _any_layer(reader)):
        return None
    return reader.size("sliding_window", window)


def _any_layer(reader: ConfigReader) -> bool:
    """Return whether a layer has a window: `layer_types` says it, else `max_window_layers`."""
    kinds = reader.get("layer_types", list, [])
    return ("sliding_attention" in kinds if kinds else
            reader.get("max_window_layers", int, 28) < reader.size("num_hidden_layers"))
