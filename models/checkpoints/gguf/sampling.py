"""Translates the keys `general.sampling.` of GGUF, which say how to sample, and writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.reading import shown
from models.checkpoints.generation import OFF, GenerationDefaults
from models.checkpoints.huggingface.generation_config import stated_sampling
from models.json_reader import ConfigReader

PREFIX = "general.sampling."
#: llama.cpp's name -> the one here. Its converter takes them from generation_config.json as they
#: stand there, so that a missing one has the same default as there
NAMES = {"temp": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p",
         "penalty_repeat": "repetition_penalty"}
#: keys that ask for more, and the values that ask for nothing
NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "sequence": ("",), "xtc_probability": (0,), "mirostat": (0,), "penalty_last_n": (-1,)}
_PARTS = {"xtc_threshold": "xtc_probability", "mirostat_tau": "mirostat",
          "mirostat_eta": "mirostat"}  # they mean something beside another key only


def read_sampling(meta: Mapping[str, Any], where: str) -> GenerationDefaults:
    """Return what the keys say. Raises ConfigError for a value of another type."""
    stated = {key.removeprefix(PREFIX): meta[key] for key in meta if key.startswith(PREFIX)}
    named = {NAMES[key]: value for key, value in stated.items() if key in NAMES}
    sampled = not named.keys() <= {"repetition_penalty"}
    sampling = stated_sampling(ConfigReader({"do_sample": sampled, **named},
                                            f"{where}: {PREFIX}*"))
    neutral = dict(NEUTRAL)
    if "repetition_penalty" not in sampling:
        del neutral["penalty_last_n"]
    refused = tuple(f"{PREFIX}{key} {shown(stated[key])}" for key, values in neutral.items()
                    if key in stated and stated[key] not in values)
    known = {*NAMES, *NEUTRAL, *_PARTS}
    return GenerationDefaults(f"{PREFIX}*" if stated else "", sampling, (), refused,
                              tuple(PREFIX + key for key in stated if key not in known))


def write_sampling(writer: Any, defaults: GenerationDefaults) -> None:  # noqa: ANN401 - gguf's class
    """Write every key where any is on, so that no reader's default counts."""
    if not defaults.sampling:
        return
    for key, name in NAMES.items():
        value = defaults.sampling.get(name, OFF[name])
        if name == "top_k":
            writer.add_int32(PREFIX + key, int(value))
        else:
            writer.add_float32(PREFIX + key, float(value))
