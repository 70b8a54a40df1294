"""GGUF: tests what the gguf package writes, each type exactly, and what we write, by equal
logits."""

import sys

import numpy as np
import pytest
from format_models import REGISTRY, difference, logits, random_model
from gguf_files import gguf, write_foreign

from core.errors import ConfigError, OptionError, TokenizerError
from core.plan.weights import no_progress
from models.checkpoints.base import SHIPPED, read_checkpoint, shipped_models
from models.checkpoints.gguf.config import rope_factors
from models.checkpoints.gguf.writer import write_gguf
from models.checkpoints.source import Source


def model_of(**keys):
    return random_model(**{"dim": 256, "hidden": 512, "layers": 1, "interleaved": False, **keys})


def write(model, path, kind):
    write_gguf(Source(model, REGISTRY), path, kind, no_progress)
    return path


def test_f32_means_the_model_it_was_made_from(tmp_path):
    model = model_of()
    _, path = write_foreign(tmp_path / "m.gguf", model)
    checkpoint = read_checkpoint(path, REGISTRY)
    assert checkpoint.interleaved and isinstance(
        checkpoint.arrays["model.layers.0.mlp.up_proj.weight"].base, np.memmap)
    assert difference(logits(checkpoint), logits(model)) < 2e-6
    assert checkpoint.tokenizer.encode("Once upon") == model.tokenizer.encode("Once upon")


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16", "int8"])
@pytest.mark.parametrize("name", shipped_models())
def test_written_file(name, kind, tmp_path):
    model = read_checkpoint(name, REGISTRY)
    path = write(model, tmp_path / "m.gguf", kind)
    back = read_checkpoint(path, REGISTRY)
    bound = {"f32": 2e-6, "f16": 2e-3, "bf16": 1e-2, "int8": 5e-2}[kind]
    assert difference(logits(back), logits(model)) < bound
    assert back.eos_ids == model.eos_ids
    assert back.tokenizer.encode("Once upon a time 🦙") == (
        model.tokenizer.encode("Once upon a time 🦙"))
    types = {t.tensor_type.name for t in gguf.GGUFReader(path).tensors}
    # 336 columns of stories-llama2's down_proj are no multiple of 32: those matrices stay F16
    extra = {"F16"} if (name, kind) == ("stories-llama2", "int8") else set()
    assert types == {"F32", {"f32": "F32", "int8": "Q8_0"}.get(kind, kind.upper())} | extra


def test_stored_dtype_is_lossless(tmp_path):
    """Write bf16 weights as bf16: the same bits, q and k rows in the other order."""
    model = read_checkpoint("stories-llama3", REGISTRY)
    back = Source(read_checkpoint(write(model, tmp_path / "m", "bf16"), REGISTRY), REGISTRY)
    for name in back.names:
        array = model.arrays[name].astype(np.float32)
        assert np.array_equal(back.array(name, pairs=False).astype(np.float32), array), name


def test_q8_0_is_what_the_package_makes(tmp_path):
    model = model_of()
    _, theirs = write_foreign(tmp_path / "theirs", model, "Q8_0")
    ours = write(model, tmp_path / "ours", "int8")
    a, b = ({t.name: t.data for t in gguf.GGUFReader(p).tensors} for p in (theirs, ours))
    assert a.keys() == b.keys() and all(np.array_equal(a[n], b[n]) for n in a)


def test_rows_that_blocks_do_not_divide_stay_f16(tmp_path):
    model = random_model(dim=64, hidden=90)
    path = write(model, tmp_path / "m", "int8")
    kinds = {t.name: t.tensor_type.name for t in gguf.GGUFReader(path).tensors}
    assert kinds["blk.0.ffn_down.weight"] == "F16" and kinds["blk.0.ffn_up.weight"] == "Q8_0"
    assert difference(logits(path), logits(model)) < 0.15


def test_biases_of_llama_and_of_qwen2(tmp_path):
    """Move Llama's q and k biases with their rows; 16-bit matrices take exact 16-bit biases."""
    model = random_model("llama2", attention_bias=True, mlp_bias=True)
    rng = np.random.default_rng(1)
    for name in [n for n in model.arrays if n.endswith("_proj.weight")]:
        model.arrays[name.replace("weight", "bias")] = rng.normal(
            0, 0.3, len(model.arrays[name])).astype(np.float32)
    assert difference(logits(write(model, tmp_path / "a", "f32")), logits(model)) < 2e-6
    qwen = random_model("qwen2", dtype=np.float16)
    back = read_checkpoint(write(qwen, tmp_path / "b", "f16"), REGISTRY)
    assert np.array_equal(logits(back), logits(qwen)) and not back.notes
    qwen = random_model("qwen2")
    back = read_checkpoint(write(qwen, tmp_path / "c", "f16"), REGISTRY)
    assert "its bias is not exact in float16" in back.notes[0]
    assert difference(logits(back), logits(qwen)) < 5e-3


@pytest.mark.parametrize("scaling", [
    {"rope_type": "linear", "factor": 4.0},
    {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
     "original_max_position_embeddings": 64}], ids=["linear", "llama3"])
def test_rope_scaling(scaling, tmp_path):
    model = random_model("llama3", dim=128, heads=2, rope_scaling=scaling)
    back = read_checkpoint(write(model, tmp_path / "m", "f32"), REGISTRY)
    got = back.config.data["rope_parameters"]
    assert {k: got[k] for k in scaling} == scaling
    assert difference(logits(back, 100), logits(model, 100)) < 5e-6


def test_published_rope_factors():
    """Read Llama-3.2's numbers through the table that its GGUF files carry."""
    from models.architectures.rope import RopeConfig
    from models.checkpoints.gguf.config import llama3_scaling
    for factor, head_dim in ((8.0, 128), (32.0, 64)):
        table = rope_factors(RopeConfig(5e5, "llama3", {
            "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192}), head_dim)
        found = llama3_scaling(table.astype(np.float32), 5e5, "x")
        assert (found["factor"], found["original_max_position_embeddings"]) == (factor, 8192)
    with pytest.raises(ConfigError, match="not llama3's"):
        llama3_scaling(np.linspace(1, 9, 32, dtype=np.float32), 1e4, "x")


def test_head_size_of_its_own(tmp_path):
    model = random_model(dim=64, heads=4, head_dim=16)
    for i in (0, 1):
        for name, shape in (("q", (128, 64)), ("k", (64, 64)), ("v", (64, 64)), ("o", (64, 128))):
            model.arrays[f"model.layers.{i}.self_attn.{name}_proj.weight"] = (
                np.random.default_rng(i).normal(0, 0.1, shape).astype(np.float32))
    model.config.data["head_dim"] = 32
    path = write(model, tmp_path / "m", "f32")
    assert difference(logits(path), logits(model)) < 2e-6


REFUSED = {  # what: metadata overrides, error, complaint
    "architecture": ({"architecture": "gemma2"}, ConfigError, "architecture 'gemma2' is not"),
    "rope scaling": ({"llama.rope.scaling.type": "longrope"}, ConfigError, "rope scaling 'lon"),
    "partial rope": ({"llama.rope.dimension_count": 32}, ConfigError, "expected the head size 64"),
    "experts": ({"llama.expert_count": 8}, ConfigError, "mixture of experts"),
    "tokenizer of another kind": ({"tokenizer": False, "tokenizer.ggml.model": "bert"},
                                  TokenizerError, "tokenizer model 'bert'"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what, tmp_path):
    overrides, error, complaint = REFUSED[what]
    _, path = write_foreign(tmp_path / "m", model_of(), **overrides)
    with pytest.raises(error, match=complaint):
        read_checkpoint(path, REGISTRY)


def test_without_a_tokenizer(tmp_path):
    """Text is refused, token ids run."""
    _, path = write_foreign(tmp_path / "m", model_of(), tokenizer=False)
    assert np.isfinite(logits(path)).all()
    with pytest.raises(TokenizerError, match="holds no tokenizer"):
        read_checkpoint(path, REGISTRY).tokenizer.encode("a")


def test_unknown_pre_tokenizer(tmp_path):
    model = read_checkpoint("stories-qwen2", REGISTRY)
    path = write(model, tmp_path / "m", "f32")
    data = path.read_bytes()
    name = b"tokenizer.ggml.pre" + (8).to_bytes(4, "little") + (5).to_bytes(8, "little")
    assert data.count(name + b"qwen2") == 1
    path.write_bytes(data.replace(name + b"qwen2", name + b"qwen9"))
    with pytest.raises(TokenizerError, match="pre-tokenizer 'qwen9' is unknown"):
        read_checkpoint(path, REGISTRY)


def test_missing_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "gguf", None)
    model = read_checkpoint(SHIPPED / "stories-llama2", REGISTRY)
    with pytest.raises(OptionError, match="pip install gguf"):
        write(model, tmp_path / "m", "f32")
