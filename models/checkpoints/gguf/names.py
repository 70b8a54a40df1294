"""Tensor names between GGUF and Hugging Face, for the architectures that we run."""

from __future__ import annotations

import re

from core.errors import CheckpointError

ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}
ROPE_FACTORS = "rope_freqs.weight"
_WHOLE = {"token_embd.weight": "model.embed_tokens.weight",
          "output_norm.weight": "model.norm.weight", "output.weight": "lm_head.weight"}
_LAYER = {"attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj",
          "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
          "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
          "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
_HF_WHOLE = {hf: name for name, hf in _WHOLE.items()}
_HF_LAYER = {hf: name for name, hf in _LAYER.items()}
_BLOCK = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")
_HF_BLOCK = re.compile(r"model\.layers\.(\d+)\.([\w.]+)\.(weight|bias)")


def to_huggingface(name: str) -> str:
    """Raises CheckpointError for a tensor that the Llama family does not have."""
    match = _BLOCK.fullmatch(name)
    if match and match[2] in _LAYER:
        return f"model.layers.{match[1]}.{_LAYER[match[2]]}.{match[3]}"
    if name not in _WHOLE:
        raise CheckpointError(f"tensor {name} is of no known kind; the file is of an architecture "
                              "that differs from what its metadata says, or damaged")
    return _WHOLE[name]


def to_gguf(name: str) -> str:
    """The inverse of `to_huggingface`."""
    match = _HF_BLOCK.fullmatch(name)
    if match and match[2] in _HF_LAYER:
        return f"blk.{match[1]}.{_HF_LAYER[match[2]]}.{match[3]}"
    if name not in _HF_WHOLE:
        raise CheckpointError(f"tensor {name} has no name in GGUF; export to hf instead")
    return _HF_WHOLE[name]
