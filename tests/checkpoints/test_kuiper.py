"""KuiperLLama's files: tests layouts by family, told apart by size and tokenizer, and equal
logits."""

import struct

import numpy as np
import pytest
from format_models import REGISTRY, difference, expanded, logits, random_model

from core.errors import CheckpointError, ConfigError
from core.plan.weights import no_progress
from models.checkpoints.base import read_checkpoint
from models.checkpoints.huggingface.tokenizer_files import write_tokenizer_files
from models.checkpoints.llama2c.kuiper_writer import write_kuiper
from models.checkpoints.llama2c.writer import write_llama2c
from models.checkpoints.source import Source, without_rope_scaling


def write(model, folder, int8=False):
    """Write the model as a KuiperLLama file beside its tokenizer; returns the path."""
    path = folder / ("int8.bin" if int8 else "f32.bin")
    write_kuiper(Source(model, REGISTRY), path, int8, no_progress)
    write_tokenizer_files(model, folder)
    return path


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("family", ["llama2", "llama3", "qwen2"])
def test_f32(family, tied, tmp_path):
    model = random_model(family, tied=tied)
    path = write(model, tmp_path)
    back = read_checkpoint(path, REGISTRY)
    assert back.interleaved == (family == "llama2")  # the others' loaders rotate halves
    assert back.config.data["rope_theta"] == model.config.data["rope_theta"]
    if back.interleaved:
        assert difference(logits(back), logits(model)) < 2e-6
    else:
        assert np.array_equal(logits(back), logits(model))
    assert back.tokenizer.encode("Once upon") == model.tokenizer.encode("Once upon")


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("family", ["llama2", "llama3"])
def test_int8(family, tied, tmp_path):
    model = random_model(family, tied=tied)
    back = read_checkpoint(write(model, tmp_path, int8=True), REGISTRY)
    # always a head of its own: KuiperLLama's loader has none for a tied int8 file
    assert not back.config.data["tie_word_embeddings"] and "lm_head.weight" in back.quantized
    assert np.array_equal(back.arrays["model.embed_tokens.weight"],
                          model.arrays["model.embed_tokens.weight"])
    assert difference(logits(back), logits(expanded(back))) < 2e-6
    assert difference(logits(back), logits(model)) < 0.15


def test_int8_layout(tmp_path):
    """Expect the eighth integer, then codes and scales of each matrix, then float32: by the
    description."""
    model = random_model("llama3", layers=1)
    data = write(model, tmp_path, int8=True).read_bytes()
    assert struct.unpack("<8i", data[:32]) == (64, 96, 1, 4, 2, -640, 128, 32)
    at = 32
    for name, rows, columns in (
            ("layers.0.self_attn.q_proj", 64, 64), ("layers.0.self_attn.k_proj", 32, 64),
            ("layers.0.self_attn.v_proj", 32, 64), ("layers.0.self_attn.o_proj", 64, 64),
            ("layers.0.mlp.gate_proj", 96, 64), ("layers.0.mlp.down_proj", 64, 96),
            ("layers.0.mlp.up_proj", 96, 64), ("lm_head", 640, 64)):
        array = model.arrays[("" if name == "lm_head" else "model.") + name + ".weight"]
        groups = array.reshape(-1, 32)
        scale = np.abs(groups).max(axis=1) / np.float32(127)
        codes = np.frombuffer(data, "i1", rows * columns, at).reshape(-1, 32)
        assert np.array_equal(codes, np.round(groups / scale[:, None])), name
        at += rows * columns
        assert np.array_equal(np.frombuffer(data, "<f4", scale.size, at), scale), name
        at += scale.nbytes
    for name in ("embed_tokens", "layers.0.input_layernorm", "layers.0.post_attention_layernorm",
                 "norm"):
        array = model.arrays[f"model.{name}.weight"]
        assert np.array_equal(np.frombuffer(data, "<f4", array.size, at), array.ravel()), name
        at += array.nbytes
    assert at == len(data)


def test_qwen2_layout(tmp_path):
    """Weight and bias of a layer's q must stand together, before the next layer's."""
    model = random_model("qwen2", tied=True)
    data = write(model, tmp_path).read_bytes()
    at = 28 + 4 * (640 * 64 + 2 * 64)
    for name in ("q_proj", "k_proj", "v_proj"):
        for layer in (0, 1):
            for part in ("weight", "bias"):
                array = model.arrays[f"model.layers.{layer}.self_attn.{name}.{part}"]
                assert np.array_equal(np.frombuffer(data, "<f4", array.size, at), array.ravel())
                at += array.nbytes


def test_llama2_is_llama2c_v0(tmp_path):
    """Both names must give one layout, so that one file runs in both programs."""
    model = random_model(tied=False)
    write_llama2c(Source(model, REGISTRY), tmp_path / "v0", 0, no_progress)
    assert write(model, tmp_path).read_bytes() == (tmp_path / "v0").read_bytes()


def test_alike_files_need_a_tokenizer_or_a_name(tmp_path):
    model = random_model("llama3")
    path = write(model, tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(
        random_model().tokenizer.processor.serialized_model_proto())
    with pytest.raises(CheckpointError, match=r"has both .* or kuiper-llama3:"):
        read_checkpoint(path, REGISTRY)
    assert np.array_equal(logits(f"kuiper-llama3:{path}"), logits(model))
    assert read_checkpoint(f"kuiper-llama2:{path}", REGISTRY).interleaved
    with pytest.raises(CheckpointError, match="holds no biases of q, k and v"):
        read_checkpoint(f"kuiper-qwen2:{path}", REGISTRY)
    for name in ("tokenizer.model", "tokenizer.json"):
        (tmp_path / name).unlink()
    with pytest.raises(CheckpointError, match="has neither"):
        read_checkpoint(path, REGISTRY)


def test_rope_scaling_is_dropped_only_when_asked(tmp_path):
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
               "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    model = random_model("llama3", rope_scaling=scaling)
    with pytest.raises(ConfigError, match=r"computes no rope scaling.*--ignore-rope-scaling"):
        write(model, tmp_path)
    plain = without_rope_scaling(model)
    back = logits(write(plain, tmp_path))
    assert np.array_equal(back, logits(plain)) and difference(back, logits(model)) > 1e-3


def test_what_kuiper_cannot_run_is_refused(tmp_path):
    for model, int8, complaint in (
            (random_model("qwen2"), True, "int8 files hold no biases"),
            (random_model("llama3", rope_theta=1e5), False, "theta 10000 or 500000"),
            (random_model("qwen2", rms_norm_eps=1e-5), False, "fixes norm eps at 1e-06"),
            (random_model("llama3", attention_bias=True), False, "has biases in no projection"),
            (random_model("llama2", dim=36, heads=2, hidden=90), True, "no group size")):
        with pytest.raises(ConfigError, match=complaint):
            write(model, tmp_path, int8)
