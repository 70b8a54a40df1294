"""Writes GGUF files with the gguf package alone, as another program would write them."""

import numpy as np
import pytest

gguf = pytest.importorskip("gguf", reason="GGUF tests need the extra: pip install '.[gguf]'")

NAMES = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
         "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
         "mlp.down_proj": "ffn_down"}
#: types that the package cannot make: the largest of each float16 scale, by its byte in a block
SCALES = {"Q2_K": {80: 4e-3, 82: 6e-3}, "Q3_K": {108: 1.5e-3}, "Q4_K": {0: 3e-4, 2: 2e-3},
          "Q5_K": {0: 1e-4, 2: 1.6e-3}, "Q6_K": {208: 6e-5}, "IQ1_S": {0: 6e-3}, "IQ1_M": {},
          "IQ2_XXS": {0: 1e-3}, "IQ2_XS": {0: 1e-3}, "IQ2_S": {0: 1e-3}, "IQ3_XXS": {0: 4e-4},
          "IQ3_S": {0: 4e-4}, "IQ4_NL": {0: 8e-4}, "IQ4_XS": {0: 5e-5}, "NVFP4": {}}


def gguf_name(name):
    if name.startswith("model.layers."):
        _, _, layer, rest = name.split(".", 3)
        kind, _, part = rest.rpartition(".")
        return f"blk.{layer}.{NAMES[kind]}.{part}"
    return {"model.embed_tokens.weight": "token_embd.weight", "lm_head.weight": "output.weight",
            "model.norm.weight": "output_norm.weight"}[name]


def blocks(array, kind, rng):
    """Return uint8 blocks. Those that the package cannot make are random: any bytes are codes, the
    scales are set to small numbers."""
    if kind not in SCALES:
        return gguf.quants.quantize(array, gguf.GGMLQuantizationType[kind])
    elements, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    raw = rng.integers(0, 256, (*array.shape[:-1], array.shape[-1] // elements, size), np.uint8)

    def halves(largest):
        drawn = rng.uniform(0.3, 1, raw.shape[:-1]) * largest
        return drawn.astype(np.float16)[..., None]

    for at, largest in SCALES[kind].items():
        raw[..., at:at + 2] = halves(largest).view(np.uint8)
    if kind == "IQ1_M":  # four bits of the scale on top of each of four words
        words = np.ascontiguousarray(raw[..., 48:]).view(np.uint16) & 0xFFF
        parts = halves(6e-3).view(np.uint16) >> np.array([0, 4, 8, 12], np.uint16) << 12
        raw[..., 48:] = (words | parts).view(np.uint8)
    elif kind == "NVFP4":
        raw[..., :4] = raw[..., :4] % 16 + 8
    return raw.reshape(*array.shape[:-1], -1)


def write_foreign(path, model, kind="F32", *, architecture=None, tokenizer=True, split=0,
                  **overrides):
    """Write a checkpoint of `format_models` as GGUF, matrices as `kind`, or each tensor as
    `kind(GGUF's name)`; returns the arrays that the file means, by Hugging Face's names, and the
    path. With `split`, so many tensors go to a part. `overrides` replace metadata."""
    c, rng = model.config.data, np.random.default_rng(9)
    short = architecture or {"LlamaForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2"}[
        c["architectures"][0]]
    writer = gguf.GGUFWriter(path, short, split_max_tensors=split)
    for add, key in ((writer.add_context_length, "max_position_embeddings"),
                     (writer.add_embedding_length, "hidden_size"),
                     (writer.add_block_count, "num_hidden_layers"),
                     (writer.add_feed_forward_length, "intermediate_size"),
                     (writer.add_head_count, "num_attention_heads"),
                     (writer.add_head_count_kv, "num_key_value_heads"),
                     (writer.add_layer_norm_rms_eps, "rms_norm_eps"),
                     (writer.add_rope_freq_base, "rope_theta")):
        add(overrides.get(key, c[key]))
    for key, value in overrides.items():
        if "." in key:
            adds = {str: writer.add_string, float: writer.add_float32, bool: writer.add_bool,
                    list: writer.add_array}
            adds.get(type(value), writer.add_uint32)(key, value)
    if tokenizer:
        add_sentencepiece(writer, model.tokenizer)
    meant = {}
    for name, array in model.arrays.items():
        array = array.astype(np.float32)
        heads = {"attn_q": c["num_attention_heads"], "attn_k": c["num_key_value_heads"]}.get(
            gguf_name(name).split(".")[-2])
        if heads and short == "llama":  # as convert_hf_to_gguf.py permutes
            array = array.reshape(heads, 2, -1, *array.shape[1:]).swapaxes(1, 2).reshape(
                array.shape)
        stored = kind(gguf_name(name)) if callable(kind) else "F32" if array.ndim == 1 else kind
        raw = blocks(array, stored, rng)
        q = gguf.GGMLQuantizationType[stored]
        writer.add_tensor(gguf_name(name), raw, raw_dtype=None if stored in ("F32", "F16") else q)
        meant[name] = gguf.quants.dequantize(raw, q)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return meant, path


def add_sentencepiece(writer, tokenizer):
    p = tokenizer.processor
    ids = range(p.get_piece_size())
    writer.add_tokenizer_model("llama")
    writer.add_token_list([p.id_to_piece(i) for i in ids])
    writer.add_token_scores([p.get_score(i) for i in ids])
    writer.add_token_types([2 if p.is_unknown(i) else 3 if p.is_control(i) else
                            6 if p.is_byte(i) else 1 for i in ids])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
