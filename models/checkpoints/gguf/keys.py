"""Says for each hyperparameter of GGUF whether it is used, changes nothing, or is refused.

Names: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md and `gguf.constants.Keys`, without
the architecture's prefix. docs/file-formats.md shows the tables below.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from core.errors import ConfigError
from core.reading import shown
from models.architectures.base import Architecture
from models.checkpoints.gguf.yarn import YARN
from models.json_reader import ConfigReader


@dataclass(frozen=True)
class Sizes:
    """Holds what some keys must agree with."""

    head_dim: int
    hidden: int
    context: int
    eps: float
    scaling: str = "linear"


@dataclass(frozen=True)
class Only:
    """Describes a key that changes the result unless `neutral` holds of its value; `said` names
    such values, `does` what another one asks for."""

    said: str
    neutral: Callable[[Any, Sizes], bool]
    does: str


def _one_of(*values: object) -> Callable[[Any, Sizes], bool]:
    return lambda value, sizes: value in values


def _close(found: object, expected: float) -> bool:
    return isinstance(found, (int, float)) and math.isclose(found, expected, rel_tol=1e-6)


def _one_or_yarn(value: Any, sizes: Sizes) -> bool:  # noqa: ANN401 - a value of metadata
    return value == 1 or (sizes.scaling == YARN and type(value) in (int, float) and value > 0)


USED = {
    "context_length": "the positions",
    "embedding_length": "the hidden size",
    "block_count": "the layers",
    "feed_forward_length": "the inner size; an array must be the same for every layer",
    "attention.head_count": "the heads; an array as above",
    "attention.head_count_kv": "the key and value heads; an array as above",
    "attention.key_length": "the head size, hidden size / heads unless given",
    "attention.value_length": "it must be the head size",
    "attention.layer_norm_rms_epsilon": "added under the root of a norm",
    "rope.dimension_count": "it must be the head size",
    "rope.freq_base": "theta, 10000 unless given",
    "rope.scaling.type": "`none`, `yarn` or `linear`, which is meant where it is missing",
    "rope.scaling.factor": "linear scaling's or yarn's factor; 0 is none",
    "rope.scale_linear": "the same, in files of 2023; both must agree",
    "rope.scaling.original_context_length": "yarn's: the context before it was extended; the "
                                            "positions unless given",
    "rope.scaling.yarn_beta_fast": "yarn's: 32 unless given",
    "rope.scaling.yarn_beta_slow": "yarn's: 1 unless given",
    "rope.scaling.yarn_log_multiplier": "yarn's: config.json's `mscale_all_dim`, with `mscale` 1",
}
HARMLESS = {
    "vocab_size": "the rows of the embedding count",
    "pooling_type": "it is for embeddings of texts",
    "use_parallel_residual": "GPT-NeoX has it; converters of 2024 wrote it for every family",
    "rope.scaling.finetuned": "it tells how the model was made",
    "expert_used_count": "there are no experts",
    "expert_feed_forward_length": "as above",
    "expert_shared_feed_forward_length": "as above",
    "expert_group_count": "as above",
    "expert_group_used_count": "as above",
    "expert_weights_scale": "as above",
    "expert_weights_norm": "as above",
    "expert_gating_func": "as above",
    "moe_every_n_layers": "as above",
    "interleave_moe_layer_step": "as above",
    "router_logit_softcapping": "as above",
}
ONLY = {
    "expert_count": Only("0", _one_of(0), "it makes the model a mixture of experts"),
    "expert_shared_count": Only("0", _one_of(0), "it adds experts to every layer"),
    "leading_dense_block_count": Only("0", _one_of(0), "the layers after these have experts"),
    "nextn_predict_layers": Only("0", _one_of(0), "it adds layers that predict further tokens"),
    "embedding_length_out": Only("the hidden size", lambda value, s: value == s.hidden,
                                 "it adds a projection"),
    "tensor_data_layout": Only("`reference` or `Meta AI original pth`", _one_of(
        "reference", "Meta AI original pth"), "it says that rows lie in another order"),
    "logit_scale": Only("0 or 1", _one_of(0, 1), "it multiplies the logits"),
    "residual_scale": Only("0 or 1", _one_of(0, 1), "it multiplies what a layer adds"),
    "embedding_scale": Only("0 or 1", _one_of(0, 1), "it multiplies the embedding"),
    "attn_logit_softcapping": Only("0", _one_of(0), "it bounds the scores of attention"),
    "final_logit_softcapping": Only("0", _one_of(0), "it bounds the logits"),
    "attention.scale": Only("0 or 1 / √(head size)", lambda value, s: value == 0 or _close(
        value, s.head_dim**-0.5), "it multiplies the scores of attention"),
    "attention.clamp_kqv": Only("0", _one_of(0), "it bounds queries, keys and values"),
    "attention.max_alibi_bias": Only("0", _one_of(0), "it adds distances to scores (ALiBi)"),
    "attention.causal": Only("true", _one_of(True), "attention then sees later tokens"),
    "attention.sliding_window": Only(
        "0 or at least the positions", lambda value, s: type(value) is int and (
            value == 0 or value >= s.context), "attention then sees the last tokens only"),
    "attention.layer_norm_epsilon": Only(
        "the epsilon of RMS norms", lambda value, s: _close(value, s.eps),
        "it asks for norms that subtract the mean"),
    "attention.group_norm_epsilon": Only("0", _one_of(0), "it asks for norms by group"),
    "attention.group_norm_groups": Only("0", _one_of(0), "it asks for norms by group"),
    "attention.temperature_length": Only("0", _one_of(0), "it scales scores by position"),
    "attention.temperature_scale": Only("0", _one_of(0), "it scales scores by position"),
    "attention.output_scale": Only("0 or 1", _one_of(0, 1), "it multiplies what attention gives"),
    "rope.scaling.attn_factor": Only(
        "1, or yarn's", _one_or_yarn, "it multiplies queries and keys"),
    "rope.scaling.yarn_attn_factor": Only(
        "1, or yarn's", _one_or_yarn, "it multiplies queries and keys"),
    "rope.scaling.yarn_ext_factor": Only(
        "0 or -1; yarn's 1 or -1", lambda value, s: value in (
            (1, -1) if s.scaling == YARN else (0, -1)), "it mixes frequencies (yarn)"),
    "rope.scaling.alpha": Only("0 or 1", _one_of(0, 1), "it scales theta"),
}


def check_keys(meta: ConfigReader, family: Architecture, sizes: Sizes) -> None:
    """Raise ConfigError for a hyperparameter that would change the result and is not used. What the
    family reads itself (`gguf_keys`) is its own matter."""
    prefix = f"{family.gguf_name}."
    for key in meta.data:
        name = key.removeprefix(prefix)
        if name == key or name in USED or name in HARMLESS or name in family.gguf_keys:
            continue
        value = meta.data[key]
        if name not in ONLY:
            raise ConfigError(f"{meta.where}: {key} is {shown(value)}; it changes the result in "
                              "ways that are not known here. Take the model as a Hugging Face "
                              "folder, or a newer kernelyard")
        rule = ONLY[name]
        if not rule.neutral(value, sizes):
            raise ConfigError(f"{meta.where}: {key} is {shown(value)}, only {rule.said} is "
                              f"supported: {rule.does}")
