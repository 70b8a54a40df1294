"""Holds what a model's files say of generating text: how to sample, and what ends it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

#: fields of core.runtime.step.Sampling that a file may state, and the value that is off
OFF: Mapping[str, float] = {"temperature": 0.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0,
                            "repetition_penalty": 1.0}


@dataclass(frozen=True)
class GenerationDefaults:
    """Holds the sampling that a model was published with.

    where     the file, or the keys, that stated it; empty where nothing did
    sampling  values by their name in OFF; a missing one is off
    stop      texts that end a generation
    refused   what the file asks for and is not supported here, a phrase for each key
    ignored   keys that are not known, transformers ignores them too
    """

    where: str = ""
    sampling: Mapping[str, float] = field(default_factory=dict)
    stop: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


def stop_origins(*named: tuple[str, Iterable[int | None]]) -> dict[int, str]:
    """Return which files name each stop id, in the order in which they first do: id -> "a, b"."""
    found: dict[int, list[str]] = {}
    for origin, ids in named:
        for i in ids:
            if i is not None and origin not in found.setdefault(i, []):
                found[i].append(origin)
    return {i: ", ".join(origins) for i, origins in found.items()}
