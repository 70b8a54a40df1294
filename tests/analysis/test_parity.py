"""Compares our logits and greedy tokens with transformers', on shipped models and on unusual
shapes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import models
from core.errors import OptionError
from models.checkpoints.base import SHIPPED, shipped_models

torch = pytest.importorskip("torch", reason="parity needs the extra: pip install '.[parity]'")
transformers = pytest.importorskip("transformers", reason="parity needs '.[parity]'")

GREEDY = 64
# what is unusual, family, configuration, prompt length
UNUSUAL = {
    "head_dim_80_one_kv_head": ("llama", dict(hidden_size=96, num_attention_heads=3, head_dim=80,
                                              num_key_value_heads=1, intermediate_size=130), 40),
    "head_dim_128": ("llama", dict(hidden_size=128, num_attention_heads=4, head_dim=128,
                                   num_key_value_heads=2, intermediate_size=96,
                                   tie_word_embeddings=True), 40),
    "k_not_multiple_of_64": ("qwen2", dict(hidden_size=72, num_attention_heads=6, vocab_size=703,
                                           num_key_value_heads=3, intermediate_size=100), 40),
    "attention_and_mlp_bias": ("llama", dict(hidden_size=64, num_attention_heads=2,
                                             intermediate_size=100, attention_bias=True,
                                             mlp_bias=True), 40),
    "rope_linear": ("llama", dict(hidden_size=64, num_attention_heads=2, rope_parameters=dict(
        rope_type="linear", factor=4.0, rope_theta=10000.0)), 100),
    # 700 tokens with scaling that starts at 128: past the threshold, and more than one chunk
    "rope_llama3_long": ("llama", dict(
        hidden_size=64, num_attention_heads=2, max_position_embeddings=2048, rope_parameters=dict(
            rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
            original_max_position_embeddings=128, rope_theta=500000.0)), 700),
}
CLASSES = {"llama": ("LlamaConfig", "LlamaForCausalLM", "stories-llama3"),
           "mistral": ("MistralConfig", "MistralForCausalLM", "stories-llama3"),
           "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", "stories-qwen2")}


@pytest.mark.parametrize("name", shipped_models())
def test_shipped_model(name):
    assert_parity(SHIPPED / name, 40)


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_shape(name, tmp_path):
    family, shape, length = UNUSUAL[name]
    make_random(tmp_path, family, **shape)
    assert_parity(tmp_path, length)


@pytest.mark.parametrize("style", ["transformers 4", "transformers 5"])
def test_both_styles_of_config(style, tmp_path):
    rope = UNUSUAL["rope_llama3_long"][1]
    make_random(tmp_path, "llama", **rope)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    assert "rope_parameters" in config, "this transformers writes the newer style"
    if style == "transformers 4":
        block = config.pop("rope_parameters")
        config["rope_theta"] = block.pop("rope_theta")
        config["rope_scaling"] = block
        path.write_text(json.dumps(config))
    assert_parity(tmp_path, 200)


@pytest.mark.parametrize("family", ["mistral", "qwen2"])
def test_up_to_a_sliding_window(family, tmp_path):
    """transformers goes by model_type, also where `architectures` says Llama."""
    keys = {"use_sliding_window": True, "max_window_layers": 0} if family == "qwen2" else {}
    make_random(tmp_path, family, hidden_size=64, num_attention_heads=2, num_key_value_heads=2,
                sliding_window=40 + GREEDY, max_position_embeddings=512, **keys)
    if family == "mistral":
        path = tmp_path / "config.json"
        path.write_text(path.read_text().replace("MistralForCausalLM", "LlamaForCausalLM"))
    assert_parity(tmp_path, 40)
    with pytest.raises(OptionError, match=r"expected 1 to 104, .*; sliding_window is 104"):
        models.load(tmp_path, max_context=105)


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_a_tied_head_of_its_own(family, tmp_path):
    make_random(tmp_path, family, hidden_size=64, num_attention_heads=2, num_key_value_heads=2)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    assert config["tie_word_embeddings"] is False
    path.write_text(json.dumps({**config, "tie_word_embeddings": True}))
    assert_parity(tmp_path, 40)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_16_bit_shards(dtype, tmp_path):
    make_random(tmp_path, "qwen2", hidden_size=64, num_attention_heads=2,
                num_key_value_heads=2, dtype=dtype, shard="60KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert_parity(tmp_path, 40)


def make_random(folder: Path, family: str, *, dtype="float32", shard="5GB", **shape):
    """Make a random model of 2 layers as transformers saves it, with a shipped model's
    tokenizer."""
    config_class, model_class, tokenizer = CLASSES[family]
    config = getattr(transformers, config_class)(**{
        "vocab_size": 701, "num_hidden_layers": 2, "intermediate_size": 128, **shape})
    torch.manual_seed(7)
    model = getattr(transformers, model_class)(config)
    with torch.no_grad():  # the default initialisation leaves biases zero and norms one
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.to(getattr(torch, dtype)).save_pretrained(folder, max_shard_size=shard)
    for file in SHIPPED.joinpath(tokenizer).glob("tokenizer*"):
        shutil.copy(file, folder)


def assert_parity(folder: Path, length: int):
    config = json.loads((folder / "config.json").read_text())
    ids = np.random.default_rng(3).integers(3, config["vocab_size"], length).tolist()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        expected = theirs(torch.tensor([ids])).logits[0].numpy()
        out = theirs.generate(torch.tensor([ids]), max_new_tokens=GREEDY, do_sample=False,
                              eos_token_id=None, pad_token_id=0)[0, length:].tolist()
    with models.load(folder, chunk=256) as ours:
        logits = ours.logits(ids)
        worst = np.abs(logits - expected).max() / np.abs(expected).max()
        assert worst < 1e-4, f"logits differ by {worst:.2e} of the largest"
        generation = ours.generate(ids, max_new_tokens=GREEDY)
        generation.stop_ids = frozenset()
        assert generation.run().tokens == out
