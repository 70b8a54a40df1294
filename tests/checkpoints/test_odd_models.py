"""Models that differ from what `save_pretrained` writes today and mean the same: they run."""


import ml_dtypes
import numpy as np
import pytest
from format_models import REGISTRY, difference, logits
from safetensors.numpy import load_file, save_file
from small_folders import configure, load, rewrite

from core.errors import CheckpointError, ConfigError
from models.checkpoints.base import read_checkpoint
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
     "layer_types": ["full_attention"]}])
def test_windows_that_nobody_notices(keys, qwen):
    expected = logits(qwen, 16)
    assert np.array_equal(logits(configure(qwen, **keys), 16), expected)


def test_windows_that_somebody_notices(folder, qwen):
    for path, keys in ((folder, {"model_type": "mistral", "sliding_window": 15}), (qwen, {
            "use_sliding_window": True, "sliding_window": 15, "max_window_layers": 0})):
        with pytest.raises(ConfigError, match="sliding_window is 15, less than the 16 positions"):
            load(configure(path, **keys))


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
