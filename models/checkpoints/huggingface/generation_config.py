"""Reads generation_config.json, as `generate` of transformers 5 does.

Names and defaults: https://huggingface.co/docs/transformers/main_classes/text_generation and
`GenerationConfig`. docs/file-formats.md shows the tables below.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.errors import ConfigError
from core.reading import shown
from models.checkpoints.generation import OFF, GenerationDefaults
from models.json_reader import ConfigReader

FILE = "generation_config.json"
USED = {
    "do_sample": "whether to sample at all; false, or missing, is greedy",
    "temperature": "1 unless given",
    "top_k": "50 unless given; 0 is off",
    "top_p": "1, which is off, unless given",
    "min_p": "off unless given",
    "repetition_penalty": "1, which is off, unless given; it counts without `do_sample` too",
    "eos_token_id": "ids that end a text, always",
    "stop_strings": "texts that end a text",
}
#: keys that change the result, and the values that do not
NEUTRAL: Mapping[str, tuple[object, ...]] = {
    **dict.fromkeys(("num_beams", "num_beam_groups", "num_return_sequences", "typical_p",
                     "encoder_repetition_penalty"), (1,)),
    **dict.fromkeys(("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "min_length",
                     "min_new_tokens", "epsilon_cutoff", "eta_cutoff", "penalty_alpha",
                     "diversity_penalty"), (0,)),
    **dict.fromkeys(("bad_words_ids", "force_words_ids", "constraints", "suppress_tokens",
                     "begin_suppress_tokens", "sequence_bias"), ([], {})),
    **dict.fromkeys(("forced_bos_token_id", "forced_eos_token_id", "top_h", "max_time",
                     "exponential_decay_length_penalty", "watermarking_config", "dola_layers"), ()),
    "guidance_scale": (1,), "token_healing": (False,), "remove_invalid_values": (False,),
}
#: keys that do not change which tokens are likely: lengths are the caller's (--max-new-tokens),
#: beams are refused, and the rest is about speed, padding and what is returned
HARMLESS = frozenset((
    "max_length", "max_new_tokens", "early_stopping", "length_penalty", "renormalize_logits",
    "use_cache", "cache_implementation", "cache_config", "max_cache_len", "use_mtp", "low_memory",
    "return_legacy_cache", "output_attentions", "output_hidden_states", "output_scores",
    "output_logits", "return_dict_in_generate", "pad_token_id", "bos_token_id",
    "decoder_start_token_id", "is_assistant", "num_assistant_tokens",
    "num_assistant_tokens_schedule", "assistant_confidence_threshold", "prompt_lookup_num_tokens",
    "max_matching_ngram_size", "assistant_early_exit", "assistant_lookbehind", "target_lookbehind",
    "assistant_ensemble_weight", "speculation_type", "compile_config", "disable_compile",
    "continuous_batching_config", "prefill_chunk_size", "generation_kwargs",
    "transformers_version", "_from_model_config", "_commit_hash"))


def read_generation_config(folder: Path, config: ConfigReader,
                           ) -> tuple[ConfigReader, GenerationDefaults]:
    """Read the file; without it the keys of config.json count, as in transformers. Raises
    ConfigError for a value of another type."""
    file = folder / FILE
    stated = ConfigReader.open(file) if file.exists() else config
    data = {key: value for key, value in stated.data.items() if value is not None}
    if stated is config:
        data = {key: value for key, value in data.items() if key in {*USED, *NEUTRAL}}
    refused = [f"{key} {shown(data[key])}" for key, neutral in NEUTRAL.items()
               if key in data and data[key] not in neutral]
    ignored = sorted(data.keys() - {*USED, *NEUTRAL, *HARMLESS})
    names = {*USED, *NEUTRAL} - {"eos_token_id"}
    said = not names.isdisjoint(data) or bool(ignored)
    reader = ConfigReader(data, stated.where)
    return stated, GenerationDefaults(
        (FILE if file.exists() else "config.json") if said else "", stated_sampling(reader),
        _texts(reader), tuple(refused), tuple(ignored))


def stated_sampling(reader: ConfigReader) -> dict[str, float]:
    """Return what differs from greedy. Raises ConfigError for a value of another type."""
    found: dict[str, float] = {}
    if reader.get("do_sample", bool, False):
        found = {"temperature": reader.get("temperature", float, 1.0),
                 "top_k": reader.get("top_k", int, 50), "top_p": reader.get("top_p", float, 1.0),
                 "min_p": reader.get("min_p", float, 0.0)}
    found["repetition_penalty"] = reader.get("repetition_penalty", float, 1.0)
    return {key: value for key, value in found.items() if value != OFF[key]}


def _texts(reader: ConfigReader) -> tuple[str, ...]:
    value = reader.data.get("stop_strings", [])
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(t, str) and t for t in texts):
        raise ConfigError(f"{reader.where}: stop_strings is {shown(value)}, expected a text or a "
                          "list of texts")
    return tuple(texts)


def to_generation_config(defaults: GenerationDefaults) -> dict[str, Any]:
    """Return the keys from which `read_generation_config` reads the same sampling."""
    sampling = dict(defaults.sampling)
    found: dict[str, Any] = {}
    if "temperature" in sampling:
        found = {"do_sample": True, "temperature": 1.0, "top_k": 0}
    return {**found, **sampling, **({"stop_strings": list(defaults.stop)} if defaults.stop else {})}
