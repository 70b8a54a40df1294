"""Names between GGUF and Hugging Face: of tensors, and of architectures."""

from __future__ import annotations

import re
from collections.abc import Mapping

from core.errors import CheckpointError, ConfigError
from models.architectures.base import Architecture
from models.checkpoints.gguf.header import GgufHeader
from models.json_reader import ConfigReader

ROPE_FACTORS = "rope_freqs.weight"
_WHOLE = {"token_embd.weight": "model.embed_tokens.weight",
          "output_norm.weight": "model.norm.weight", "output.weight": "lm_head.weight"}
_LAYER = {"attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj",
          "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
          "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
          "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
_HF_WHOLE = {hf: name for name, hf in _WHOLE.items()}
_BLOCK = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")
_HF_BLOCK = re.compile(r"model\.layers\.(\d+)\.([\w.]+)\.(weight|bias)")


def to_huggingface(name: str, family: Architecture) -> str:
    """Return the name that the family gives a tensor. Raises CheckpointError for an unknown one."""
    match, layer = _BLOCK.fullmatch(name), {**_LAYER, **family.gguf_layer}
    if match and match[2] in layer:
        return f"model.layers.{match[1]}.{layer[match[2]]}.{match[3]}"
    if name not in _WHOLE:
        raise CheckpointError(f"tensor {name} is of no known kind; the file is of an architecture "
                              "that differs from what its metadata says, or damaged")
    return _WHOLE[name]


def to_gguf(name: str, family: Architecture) -> str:
    """Return GGUF's name of a tensor: the inverse of `to_huggingface`."""
    match = _HF_BLOCK.fullmatch(name)
    layer = {hf: short for short, hf in {**_LAYER, **family.gguf_layer}.items()}
    if match and match[2] in layer:
        return f"blk.{match[1]}.{layer[match[2]]}.{match[3]}"
    if name not in _HF_WHOLE:
        raise CheckpointError(f"tensor {name} has no name in GGUF; export to hf instead")
    return _HF_WHOLE[name]


def gguf_family(header: GgufHeader, families: Mapping[str, Architecture]) -> Architecture:
    """Find the family by `general.architecture`. Raises ConfigError listing the known ones."""
    meta = ConfigReader(header.metadata, str(header.path))
    short = meta.get("general.architecture", str)
    known = {f.gguf_name: f for f in families.values() if f.gguf_name is not None}
    if short not in known:
        raise ConfigError(f"{meta.where}: architecture {short!r} is not supported, expected one of "
                          f"{', '.join(sorted(known))}; a plugin can add it with register_models")
    return known[short]
