"""Compares GPTQ and AWQ folders with a dequantisation written from the description, one code a
time."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from format_models import REGISTRY, difference, expanded, logits, random_model
from safetensors.numpy import load_file, save_file

from core.errors import CheckpointError, ConfigError
from models import export
from models.checkpoints.base import read_checkpoint

AWQ_COLUMNS = (0, 2, 4, 6, 1, 3, 5, 7)  # the column that each nibble of an int32 holds, low first
G = 32


def pack(codes, axis, columns=range(8)):
    """Pack codes 0..15 into int32: eight along `axis`, in the order of `columns`, low nibble
    first."""
    codes = np.moveaxis(codes.astype(np.int64), axis, -1)
    words = sum(codes[..., c::8] << (4 * i) for i, c in enumerate(columns))
    return np.moveaxis(words.astype(np.uint32).view(np.int32), -1, axis)


def draw(shape, rng, *, symmetric=False, group=G, order=None):
    """Make codes [K,N], zeros [G,N], scales f16 [G,N], g_idx [K], as a quantiser would choose
    them."""
    n, k = shape
    groups = -(-k // group)
    codes = rng.integers(0, 16, (k, n))
    zeros = np.full((groups, n), 8) if symmetric else rng.integers(1, 16, (groups, n))
    scales = (rng.uniform(0.5, 1, (groups, n)) * 0.25 * k**-0.5).astype(np.float16)
    g_idx = np.arange(k, dtype=np.int32) // group
    return codes, zeros, scales, (g_idx if order is None else g_idx[order.permutation(k)])


def meant(codes, zeros, scales, g_idx):
    """Return float32 [N,K]: w[n,k] = scale * (code - zero), written out with loops over groups."""
    out = np.empty(codes.T.shape, np.float32)
    for k in range(codes.shape[0]):
        g = g_idx[k]
        out[:, k] = scales[g].astype(np.float32) * (codes[k] - zeros[g]).astype(np.float32)
    return out


def write(folder, model, method, *, symmetric=False, group=G, desc_act=False, biases=False,
          head=False, **keys):
    """Make `model` a folder of that method; returns the checkpoint of float32 that it means."""
    rng, arrays, full = np.random.default_rng(4), {}, {}
    for name, array in model.arrays.items():
        if not name.endswith("_proj.weight") and not (head and name == "lm_head.weight"):
            arrays[name] = array.astype(np.float16)
            full[name] = arrays[name].astype(np.float32)
            continue
        q = draw(array.shape, rng, symmetric=symmetric, order=rng if desc_act else None,
                 group=array.shape[1] if group == -1 else group)
        codes, zeros, scales, g_idx = q
        full[name] = meant(*q)
        module = name.removesuffix("weight")
        if method == "awq":
            arrays[module + "qweight"] = pack(codes, 1, AWQ_COLUMNS)
            arrays[module + "qzeros"] = pack(zeros, 1, AWQ_COLUMNS)
        else:
            less = 0 if keys.get("checkpoint_format") == "gptq_v2" else 1
            arrays[module + "qweight"] = pack(codes, 0)
            arrays[module + "qzeros"] = pack((zeros - less) % 16, 1)
            arrays[module + "g_idx"] = g_idx
            if biases:
                arrays[module + "bias"] = np.zeros(array.shape[0], np.float16)
        arrays[module + "scales"] = scales
    block = {"quant_method": method, "bits": 4, "group_size": group, **keys}
    block |= {"zero_point": True, "version": "gemm"} if method == "awq" else {
        "sym": symmetric, "desc_act": desc_act}
    shutil.copytree(model.path, folder, ignore=shutil.ignore_patterns("model.safetensors"))
    config = {**model.config.data, "torch_dtype": "float16", "quantization_config": block | keys}
    (folder / "config.json").write_text(json.dumps(config))
    save_file({n: np.ascontiguousarray(a) for n, a in arrays.items()}, folder / "model.safetensors")
    return replace(model, arrays=full)


KINDS = {
    "gptq": {}, "gptq symmetric": {"symmetric": True},
    "gptq v2": {"checkpoint_format": "gptq_v2"},
    "gptq v2 symmetric": {"checkpoint_format": "gptq_v2", "symmetric": True},
    "gptq rows": {"group": -1}, "gptq biases": {"biases": True}, "gptq head": {"head": True},
    "gptq skips": {"dynamic": {"-:.*lm_head": {}}}, "gptq short": {"group": 40},
    "awq": {}, "awq rows": {"group": -1}, "awq short": {"group": 40}, "awq head": {"head": True},
}


@pytest.mark.parametrize("family, kind", [
    *(("llama2", kind) for kind in KINDS), ("qwen2", "gptq"), ("qwen2", "awq head")])
def test_logits(family, kind, tmp_path):
    model = random_model(family)
    full = write(tmp_path / "m", model, kind.split()[0], **KINDS[kind])
    back = read_checkpoint(tmp_path / "m", REGISTRY)
    assert len(back.quantized) == 7 * 2 + ("head" in kind) and not back.notes
    assert {q.has_zeros for q in back.quantized.values()} == {"symmetric" not in kind}
    means = expanded(back)
    for name, array in full.arrays.items():
        assert np.array_equal(means.arrays[name], array), name  # exact: no rounding anywhere
    assert difference(logits(back), logits(full)) < 2e-6


@pytest.mark.parametrize("family", ["llama2", "qwen2"])
def test_groups_in_the_order_of_activations(family, tmp_path):
    """An unsorted g_idx must be expanded, exactly, and reported."""
    full = write(tmp_path / "m", random_model(family), "gptq", desc_act=True)
    back = read_checkpoint(tmp_path / "m", REGISTRY)
    assert not back.quantized and "14 of 14 matrices were expanded to f32" in back.notes[0]
    assert all(np.array_equal(back.arrays[n], a) for n, a in full.arrays.items())
    assert np.array_equal(logits(back), logits(full))


def test_zero_of_the_first_format_wraps(tmp_path):
    """A zero of 0 is stored as 15: less one, modulo 16."""
    model = random_model()
    write(tmp_path / "m", model, "gptq")
    tensors = load_file(tmp_path / "m" / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj"
    tensors[f"{name}.qzeros"] = np.full_like(tensors[f"{name}.qzeros"], -1)
    save_file(tensors, tmp_path / "m" / "model.safetensors")
    back = read_checkpoint(tmp_path / "m", REGISTRY)
    assert not back.arrays[f"{name}.weight.zeros"].any()


def test_exported_and_run(tmp_path, capsys, run_cli):
    write(tmp_path / "m", random_model("llama3"), "awq")
    assert export.main(["--model", str(tmp_path / "m"), "--to", "hf", "--out",
                        str(tmp_path / "out")]) == 0
    assert "quantization_config" not in json.loads((tmp_path / "out/config.json").read_text())
    assert difference(logits(tmp_path / "out"), logits(tmp_path / "m")) < 2e-3  # float16
    done = run_cli("--model", str(tmp_path / "m"), "--max-new-tokens", "3", "--json", code=0)
    assert len(json.loads(done.stdout)["tokens"]) == 3


@pytest.mark.parametrize("method, keys, complaint", [
    ("gptq", {"bits": 3}, "bits is 3, only 4 can be read"),
    ("gptq", {"bits": 8}, "bits is 8, only 4 can be read"),
    ("awq", {"bits": 8}, "bits is 8, only 4"),
    ("awq", {"version": "gemv"}, "version is 'gemv', expected 'gemm'"),
    ("awq", {"zero_point": False}, "zero_point is False, only True"),
    ("gptq", {"checkpoint_format": "marlin"}, "'marlin' or Marlin's, expected 'gptq' or 'gptq_v2'"),
    ("gptq", {"is_marlin_format": True}, "Marlin's"),
    ("gptq", {"dynamic": {"+:.*down.*": {"bits": 8}}}, "settings of its own"),
    ("gptq", {"group_size": 0}, "group_size is 0"), ("gptq", {"bits": None}, "'bits' is missing"),
    ("gptq", {"quant_method": "bitsandbytes"}, "expected 'kernelyard', 'gptq' or 'awq'")])
def test_refused(method, keys, complaint, tmp_path):
    write(tmp_path / "m", random_model(layers=1), method, **keys)
    with pytest.raises(ConfigError, match=complaint):
        read_checkpoint(tmp_path / "m", REGISTRY)


def test_damaged(tmp_path, run_cli):
    write(tmp_path / "m", random_model(layers=1), "gptq", desc_act=True)
    good = load_file(tmp_path / "m" / "model.safetensors")
    q, scales = "model.layers.0.mlp.up_proj.", "model.layers.0.mlp.up_proj.scales"
    for change, complaint in (
            ({q + "qzeros": None}, r"up_proj\.qzeros is missing"),
            ({q + "g_idx": None}, r"up_proj\.g_idx is missing, and desc_act"),
            ({q + "qweight": good[q + "qweight"].astype(np.float32)}, "float32.*expected int32"),
            ({q + "qzeros": good[q + "qzeros"][:1]}, r"qzeros is \[1, 12\], expected \[2, 12\]"),
            ({scales: good[scales][:, :5]}, r"scales is \[2, 5\], expected \[2, 96\]"),
            ({scales: good[scales] * np.float16("inf")}, "not finite"),
            ({q + "g_idx": good[q + "g_idx"] + 1}, "groups 0 to 1"),
            ({q + "g_idx": good[q + "g_idx"][1:]}, "groups 0 to 1")):
        tensors = {n: np.ascontiguousarray(a) for n, a in {**good, **change}.items()
                   if a is not None}
        save_file(tensors, tmp_path / "m" / "model.safetensors")
        with pytest.raises(CheckpointError, match=complaint):
            read_checkpoint(tmp_path / "m", REGISTRY)
    done = run_cli("--model", str(tmp_path / "m"), code=2)
    assert "g_idx" in done.stderr and not done.stdout
    save_file({**good, q + "qweight": good[q + "qweight"][:4], scales: good[scales][:1],
               q + "qzeros": good[q + "qzeros"][:1], q + "g_idx": good[q + "g_idx"][:32] * 0},
              tmp_path / "m" / "model.safetensors")
    assert "the configuration asks for" in run_cli("--model", str(tmp_path / "m"), code=2).stderr
