"""Models that differ from what `save_pretrained` writes today and mean the same: they run."""


import ml_dtypes
import numpy as np
import pytest
from format_models import REGISTRY, difference, logits
from safetensors.numpy import load_file, save_file
from small_folders import configure, load, rewrite

from core.errors import CheckpointError, ConfigError, OptionError
from core.plan.weights import no_progress
from models.checkpoints.base import read_checkpoint
from models.checkpoints.huggingface.tokenizer_files import copy_tokenizer_files
from models.checkpoints.huggingface.writer import write_huggingface
from models.checkpoints.source import Source
from models.engine.load import open_checkpoint
from models.engine.options import LoadOptions


@pytest.mark.parametrize("keys", [
    {"hidden_act": "swish"}, {"pretraining_tp": 2}, {"sliding_window": 4},
    {"model_type": "mistral", "sliding_window": 16},
    {"model_type": "mistral", "sliding_window": None}])
def test_keys_that_change_nothing(keys, folder):
    expected = logits(folder, 16)
    assert np.array_equal(logits(configure(folder, **keys), 16), expected)


@pytest.mark.parametrize("keys", [
    {"use_sliding_window": False, "sliding_window": 4},
    {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 0},
    {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    {"use_sliding_window": True, "sliding_window": 4},  # 28 layers without a window
    {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0,
     "layer_types": ["full_attention"]},
    {"use_sliding_window": True, "sliding_window": 4, "layer_types": None}])
def test_windows_that_nobody_notices(keys, qwen):
    expected = logits(qwen, 16)
    assert np.array_equal(logits(configure(qwen, **keys), 16), expected)


def test_windows_that_somebody_notices(folder, qwen):
    used = {"use_sliding_window": True, "sliding_window": 15}
    for path, keys in ((folder, {"model_type": "mistral", "sliding_window": 15}),
                       (folder, {"max_window_layers": 28}),  # a key of Qwen2's alone
                       (qwen, {**used, "max_window_layers": 0}),
                       (qwen, {**used, "max_window_layers": 28,
                               "layer_types": ["sliding_attention"]})):
        expected = logits(path, 15)
        checkpoint = read_checkpoint(configure(path, **keys), REGISTRY)
        assert np.array_equal(logits(checkpoint, 15), expected)
        assert checkpoint.notes == ["the context ends at 15 of 16 tokens: sliding_window is 15, "
                                    "and only attention over all positions is supported"]
        with pytest.raises(OptionError, match=r"expected 1 to 15, .*; sliding_window is 15"):
            open_checkpoint(checkpoint, LoadOptions(max_context=16), REGISTRY)
        with pytest.raises(ConfigError, match="sliding_window is -1"):
            load(configure(path, sliding_window=-1))
        configure(path, sliding_window=15)


@pytest.mark.parametrize(("keys", "said"), [
    ({"is_causal": False}, "is_causal is False"),
    ({"model_type": "granite"}, "model_type is 'granite', and architectures says LlamaForC"),
    ({"layer_types": ["chunked_attention"]}, r"layer_types is \['chunked_attention'\], expected"),
    ({"layer_types": ["full_attention"] * 2}, "expected for each of 1 layers one of full")])
def test_keys_that_ask_for_another_computation(keys, said, folder):
    """transformers 5.24 gives other logits for the first two, and fails for the others."""
    with pytest.raises(ConfigError, match=said):
        load(configure(folder, **keys))


def test_a_class_that_is_no_llama(qwen):
    with pytest.raises(ConfigError, match=r"model_type is 'mistral', .* expected 'qwen2'"):
        load(configure(qwen, model_type="mistral"))


def test_foreign_names_are_shown(folder):
    rewrite(folder, lambda t: {f"_orig_mod.{n}": a for n, a in t.items()})
    with pytest.raises(CheckpointError, match=r"missing with .* such as _orig_mod\..*: rename"):
        load(folder)


@pytest.mark.parametrize("keeps", ["a different head", "an equal head", "the head alone"])
def test_a_tied_head_in_the_file(keeps, folder, tmp_path):
    """Decides as transformers 5: a different head is kept, with a warning, also by an export."""
    tensors = load_file(folder / "model.safetensors")
    if keeps != "a different head":
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    rewrite(folder, lambda _: tensors)
    expected = logits(folder, 16)
    configure(folder, tie_word_embeddings=True)
    if keeps == "the head alone":
        rewrite(folder, lambda t: {n: a for n, a in t.items() if "embed" not in n})
    checkpoint = read_checkpoint(folder, REGISTRY)
    assert np.array_equal(logits(checkpoint, 16), expected)
    warned = [n for n in checkpoint.notes if "the file's head is used" in n]
    assert checkpoint.notes == warned and len(warned) == (keeps == "a different head")
    (tmp_path / "x").mkdir()
    write_huggingface(Source(checkpoint, REGISTRY), tmp_path / "x", "f32", None, no_progress)
    copy_tokenizer_files(checkpoint, tmp_path / "x")
    assert np.array_equal(logits(tmp_path / "x", 16), expected)
    written = read_checkpoint(tmp_path / "x", REGISTRY)
    assert written.config.data["tie_word_embeddings"] is not bool(warned) and not written.notes


def test_names_without_a_prefix(folder):
    expected = logits(folder, 16)
    rewrite(folder, lambda t: {n.removeprefix("model."): a for n, a in t.items()})
    assert np.array_equal(logits(folder, 16), expected)


BUFFERS = {"position_ids": np.arange(5), "mask": np.ones((3, 3), bool), "double": np.ones(2),
           "small": np.zeros(3, np.int16), "codes": np.zeros(3, np.uint8)}


@pytest.mark.parametrize("name", BUFFERS)
def test_buffers_are_left_out(name, folder):
    rewrite(folder, lambda t: {**t, f"model.{name}": BUFFERS[name]})
    assert name in read_checkpoint(folder, REGISTRY).notes[0]
    load(folder)


@pytest.mark.parametrize("dtype", [np.int64, np.int8, np.float64, np.uint8])
def test_weights_of_integers_are_refused(dtype, folder):
    rewrite(folder, lambda t: {**t, "model.norm.weight": t["model.norm.weight"].astype(dtype)})
    with pytest.raises(CheckpointError, match=r"tensor model\.norm\.weight (is|has dtype)"):
        read_checkpoint(folder, REGISTRY)


def mixed(wide):
    """Everything in bf16 but what `wide` chooses by its name; exact in both."""
    def edit(tensors):
        half = {n: a.astype(ml_dtypes.bfloat16) for n, a in tensors.items()}
        return {n: a.astype(np.float32) if wide in n else a for n, a in half.items()}
    return edit


@pytest.mark.parametrize("wide, backend", [
    *((w, "cpu_numpy") for w in ("bias", "norm", "gate_proj", "q_proj.weight", "embed", "lm_head")),
    ("gate_proj", "cpu_numba,cpu_numpy"), ("q_proj.weight", "cpu_numba,cpu_numpy")])
def test_mixed_dtypes(wide, backend, qwen):
    """One part in f32 beside bf16, with equal numbers: the logits of all in bf16, also by fused
    kernels."""
    pytest.importorskip(backend.partition(",")[0])
    ids = list(range(3, 19))

    def computed():
        with open_checkpoint(read_checkpoint(qwen, REGISTRY), LoadOptions(
                backend, dtype="f32"), REGISTRY) as model:
            return model.logits(ids)
    tensors = load_file(qwen / "model.safetensors")
    rewrite(qwen, mixed("nothing"))
    expected = computed()
    save_file(mixed(wide)(tensors), qwen / "model.safetensors")
    assert difference(computed(), expected) < 1e-5


def test_a_bias_that_bf16_does_not_hold(qwen):
    """The matrix is widened, and no number changes."""
    tensors = load_file(qwen / "model.safetensors")
    wide = {n: a if n.endswith("bias") else a.astype(ml_dtypes.bfloat16).astype(np.float32)
            for n, a in tensors.items()}
    save_file(wide, qwen / "model.safetensors")
    expected = logits(qwen, 16)
    save_file({n: a if n.endswith("bias") else a.astype(ml_dtypes.bfloat16)
               for n, a in wide.items()}, qwen / "model.safetensors")
    checkpoint = read_checkpoint(qwen, REGISTRY)
    assert len(checkpoint.notes) == 3 and "its bias is not exact in bfloat16" in checkpoint.notes[0]
    assert difference(logits(checkpoint, 16), expected) < 1e-6
