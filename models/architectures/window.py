"""Find the sliding window of attention that a configuration asks for."""

from __future__ import annotations

from core.errors import ConfigError
from core.reading import shown
from models.json_reader import ConfigReader

_KINDS = ("full_attention", "sliding_attention")
_DEFAULT = 4096  # of Mistral and Qwen2 in transformers, where the key is missing; null is none


def find_window(reader: ConfigReader, *, used: bool, by_layer: bool = False) -> int | None:
    """Return the tokens that a position attends to, itself among them; None for all. Up to so many
    positions, attention over all of them is the same.

    used      whether the family's program looks at `sliding_window` in this configuration
    by_layer  whether it looks at which layers have a window (Qwen2); else all have it (Mistral)

    Raises ConfigError for layers of another kind.
    """
    kinds = _layer_kinds(reader)
    window = reader.get("sliding_window", int, 0) if "sliding_window" in reader.data else _DEFAULT
    if not used or not window or (by_layer and not _any_layer(reader, kinds)):
        return None
    return reader.size("sliding_window", window)


def _layer_kinds(reader: ConfigReader) -> list[str]:
    """Return `layer_types`, one for each layer, or an empty list. Raises ConfigError for a kind
    that is another computation."""
    kinds, layers = reader.get("layer_types", list, []), reader.size("num_hidden_layers")
    if any(kind not in _KINDS for kind in kinds) or len(kinds) not in (0, layers):
        raise ConfigError(f"{reader.where}: layer_types is {shown(kinds)}, expected for each of "
                          f"{layers} layers one of {', '.join(_KINDS)}; take a model whose layers "
                          "attend in one of these ways")
    return kinds


def _any_layer(reader: ConfigReader, kinds: list[str]) -> bool:
    """Return whether a layer has a window: `layer_types` says it, else `max_window_layers`."""
    return ("sliding_attention" in kinds if kinds else
            reader.get("max_window_layers", int, 28) < reader.size("num_hidden_layers"))
