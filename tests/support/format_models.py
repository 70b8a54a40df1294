"""Makes small models for the format tests: random ones of each family, and their logits."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from core.installed.registry import default_registry
from models.checkpoints.base import SHIPPED, Checkpoint, read_checkpoint
from models.checkpoints.llama2c.layout import Dimensions, v1_layout
from models.checkpoints.source import Source
from models.engine.load import open_checkpoint
from models.engine.options import LoadOptions
from models.json_reader import ConfigReader
from models.tokenizers.base import load_tokenizer

REGISTRY = default_registry()
# architecture, theta, eps, whose tokenizer
FAMILIES = {"llama2": ("LlamaForCausalLM", 1e4, 1e-5, "stories-llama2"),
            "llama3": ("LlamaForCausalLM", 5e5, 1e-5, "stories-llama3"),
            "qwen2": ("Qwen2ForCausalLM", 1e6, 1e-6, "stories-qwen2")}


def random_model(family="llama2", *, tied=False, dim=64, hidden=96, layers=2, heads=4, kv_heads=2,
                 vocab=640, positions=128, dtype=np.float32, interleaved=False, **keys):
    """Make a checkpoint as from a Hugging Face folder, q and k in halves unless `interleaved`."""
    architecture, theta, eps, tokenizer = FAMILIES[family]
    d = Dimensions(dim, hidden, layers, heads, kv_heads, vocab, positions, tied)
    rng = np.random.default_rng(5)
    arrays = {}
    for slot in v1_layout(d):
        scale = 0.3 / np.sqrt(slot.shape[-1]) * 4 if len(slot.shape) == 2 else 0.1
        array = rng.normal(0, scale, slot.shape) + (len(slot.shape) == 1)
        arrays[slot.name] = array.astype(dtype)
        if family == "qwen2" and slot.name.split(".")[-2] in ("q_proj", "k_proj", "v_proj"):
            bias = rng.normal(0, 0.3, slot.shape[0]).astype(dtype)
            arrays[slot.name.replace("weight", "bias")] = bias
    config = {"architectures": [architecture], "vocab_size": vocab, "hidden_size": dim,
              "intermediate_size": hidden, "num_hidden_layers": layers,
              "num_attention_heads": heads, "num_key_value_heads": kv_heads,
              "max_position_embeddings": positions, "rms_norm_eps": eps, "rope_theta": theta,
              "tie_word_embeddings": tied, **keys}
    loaded = load_tokenizer(SHIPPED / tokenizer)
    stops = () if loaded.eos_id is None else (loaded.eos_id,)
    return Checkpoint(Path(SHIPPED / tokenizer), ConfigReader(config, "made"), arrays, loaded,
                      stops, interleaved=interleaved)


def logits(model, count=40):
    """Return the logits float32 [count, vocab] of a checkpoint, or of what is at a path."""
    checkpoint = model if isinstance(model, Checkpoint) else read_checkpoint(model, REGISTRY)
    with open_checkpoint(checkpoint, LoadOptions(dtype="f32"), REGISTRY) as opened:
        ids = np.random.default_rng(3).integers(3, opened.config.vocab_size, count)
        return opened.logits(ids.tolist())


def difference(a, b):
    """Return the largest difference, as a part of the largest logit of `b`."""
    return float(np.abs(a - b).max() / np.abs(b).max())


def expanded(checkpoint):
    """Return the same model with float32 matrices where the file has codes."""
    source = Source(checkpoint, REGISTRY)
    arrays = {n: source.array(n, pairs=checkpoint.interleaved) for n in source.names}
    config = {**checkpoint.config.data, "tie_word_embeddings": source.config.tied_embeddings}
    return replace(checkpoint, arrays=arrays, quantized={}, config=ConfigReader(config, "expanded"))
