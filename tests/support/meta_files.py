"""Writes Meta's folders from a checkpoint of `format_models` as Meta publishes its models."""

import base64
import json

import ml_dtypes
import numpy as np
import torch

from models.checkpoints.rows import to_pairs
from models.tokenizers.build import vocabulary_of
from models.tokenizers.tiktoken_ranks import byte_letters

NAMES = {"self_attn.q_proj": "attention.wq", "self_attn.k_proj": "attention.wk",
         "self_attn.v_proj": "attention.wv", "self_attn.o_proj": "attention.wo",
         "mlp.gate_proj": "feed_forward.w1", "mlp.down_proj": "feed_forward.w2",
         "mlp.up_proj": "feed_forward.w3", "input_layernorm": "attention_norm",
         "post_attention_layernorm": "ffn_norm"}
ROWS, COLUMNS = ("wq", "wk", "wv", "w1", "w3", "output"), ("wo", "w2")  # how a matrix is split
SMALL = {"multiple_of": 32, "ffn_dim_multiplier": 0.5}  # 96 from a dim of 64


def meta_name(name):
    name = name.removeprefix("model.").replace("embed_tokens", "tok_embeddings")
    name = name.replace("lm_head", "output")
    for ours, theirs in NAMES.items():
        name = name.replace(ours, theirs)
    return name


def tensor(array):
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(array.copy())


def write_meta(folder, model, shards=1, *, vocabulary_split=1, **params):
    """Write `model` as Meta would publish it; returns the folder."""
    folder.mkdir(exist_ok=True)
    c = model.config.data
    parts = [{"rope.freqs": torch.ones(8)} for _ in range(shards)]
    for name, array in model.arrays.items():
        heads = {"q_proj": c["num_attention_heads"], "k_proj": c["num_key_value_heads"]}.get(
            name.split(".")[-2])
        if heads and not model.interleaved:
            array = to_pairs(array, heads)
        theirs = meta_name(name)
        kind = theirs.split(".")[-2]
        axis = (0 if kind in ROWS else 1 if kind in COLUMNS else
                vocabulary_split if kind == "tok_embeddings" else None)
        pieces = [array] * shards if axis is None else np.split(array, shards, axis)
        for part, piece in zip(parts, pieces, strict=True):
            part[theirs] = tensor(piece)
    for i, part in enumerate(parts):
        torch.save(part, folder / f"consolidated.{i:02}.pth")
    params = {"dim": c["hidden_size"], "n_layers": c["num_hidden_layers"],
              "n_heads": c["num_attention_heads"], "n_kv_heads": c["num_key_value_heads"],
              "norm_eps": c["rms_norm_eps"], "vocab_size": -1, **SMALL, **params}
    (folder / "params.json").write_text(json.dumps(params))
    (folder / "tokenizer.model").write_bytes(
        model.tokenizer.processor.serialized_model_proto()
        if hasattr(model.tokenizer, "processor") else ranks(model.tokenizer))
    return folder


def ranks(tokenizer, count=384):
    """Make a tiktoken file of the first tokens of byte-level BPE."""
    back = {letter: byte for byte, letter in enumerate(byte_letters())}
    tokens = [t for t, kind in zip(*(getattr(vocabulary_of(tokenizer, "x"), n) for n in (
        "tokens", "types")), strict=True) if kind == 1][:count]
    return b"".join(base64.b64encode(bytes(back[c] for c in t)) + b" %d\n" % i
                    for i, t in enumerate(tokens))
