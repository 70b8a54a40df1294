"""llama2.c's files: are byte for byte as its exporter writes them, and give equal logits."""

import struct

import numpy as np
import pytest
from format_models import REGISTRY, difference, expanded, logits, random_model

from core.errors import CheckpointError, ConfigError, TokenizerError
from core.plan.weights import no_progress
from models.checkpoints.base import read_checkpoint
from models.checkpoints.huggingface.tokenizer_files import (
    write_tokenizer_bin,
    write_tokenizer_files,
)
from models.checkpoints.llama2c.writer import write_llama2c
from models.checkpoints.rows import to_halves, to_pairs
from models.checkpoints.source import Source

NORMS, MATRICES = ("input_layernorm", "post_attention_layernorm"), (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj", "mlp.down_proj", "mlp.up_proj")


def write(model, folder, version, tokenizer="bin"):
    """Write the model as a llama2.c file beside its tokenizer; returns the path."""
    path = folder / f"v{version}.bin"
    write_llama2c(Source(model, REGISTRY), path, version, no_progress)
    (write_tokenizer_bin if tokenizer == "bin" else write_tokenizer_files)(model, folder)
    return path


def paired(model, name):
    """Return a tensor as llama2.c has it: rows of q and k in pairs, written out independently."""
    array, heads = model.arrays[name], {"q": 4, "k": 2}.get(name.split(".")[-2][:1])
    if ".self_attn." not in name or heads is None or name.split(".")[-2][1:] != "_proj":
        return array
    half = array.shape[0] // heads // 2
    rows = [h * 2 * half + i + side * half for h in range(heads) for i in range(half)
            for side in (0, 1)]
    return array[rows]


def expected(model, version, tied):
    """Return the bytes that export.py's description gives, built with struct alone."""
    c = model.config.data
    sizes = [c[k] for k in ("hidden_size", "intermediate_size", "num_hidden_layers",
                            "num_attention_heads", "num_key_value_heads", "vocab_size",
                            "max_position_embeddings")]

    def layers(kind):
        return [f"model.layers.{i}.{kind}.weight" for i in range(c["num_hidden_layers"])]

    embed, last = ["model.embed_tokens.weight"], [] if tied else ["lm_head.weight"]
    norms = [n for kind in NORMS for n in layers(kind)] + ["model.norm.weight"]
    if version == 0:
        order = (embed + layers(NORMS[0]) + [n for m in MATRICES[:4] for n in layers(m)]
                 + layers(NORMS[1]) + [n for m in MATRICES[4:] for n in layers(m)]
                 + ["model.norm.weight", "tables"] + last)
        sizes[5] *= 1 if tied else -1
        out = struct.pack("<7i", *sizes)
    else:
        order = norms + embed + [n for m in MATRICES for n in layers(m)] + last
        out = struct.pack("<Ii7iB", 0x616B3432, version, *sizes, tied)
        out += struct.pack("<i", 32) if version == 2 else b""
        out += b"\0" * (256 - len(out))
    for name in order:
        if name == "tables":
            half = sizes[0] // sizes[3] // 2
            angle = np.outer(np.arange(sizes[6], dtype=np.float32), (
                1 / np.float32(1e4) ** (np.arange(half, dtype=np.float32) / half)))
            out += np.cos(angle).astype("<f4").tobytes() + np.sin(angle).astype("<f4").tobytes()
        elif version == 2 and name not in norms:
            groups = paired(model, name).reshape(-1, 32)
            scale = np.abs(groups).max(axis=1) / np.float32(127)
            out += np.round(groups / scale[:, None]).astype("i1").tobytes()
            out += scale.astype("<f4").tobytes()
        else:
            out += paired(model, name).astype("<f4").tobytes()
    return out


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("version", [0, 1, 2])
def test_layout_and_logits(version, tied, tmp_path):
    model = random_model(tied=tied)
    path = write(model, tmp_path, version)
    assert path.read_bytes() == expected(model, version, tied)
    checkpoint = read_checkpoint(path, REGISTRY)
    assert checkpoint.interleaved and checkpoint.config.data["tie_word_embeddings"] is tied
    assert checkpoint.eos_ids == (2, 1)  # run.c ends a text at BOS
    # f32: the sums of q·k run in another order, nothing else differs; int8: steps of 1/127
    assert difference(logits(checkpoint), logits(model)) < (0.15 if version == 2 else 2e-6)
    assert difference(logits(checkpoint), logits(expanded(checkpoint))) < 2e-6


def test_lossless_round_trip_is_exact(tmp_path):
    model = random_model(interleaved=True)
    for version in (0, 1):
        back = read_checkpoint(write(model, tmp_path, version), REGISTRY)
        assert np.array_equal(logits(back), logits(model))
        assert all(np.array_equal(back.arrays[n], a) for n, a in model.arrays.items())
        assert isinstance(back.arrays["lm_head.weight"].base, np.memmap)


def test_int8_written_again_is_the_same_file(tmp_path):
    path = write(random_model(tied=True), tmp_path, 2)
    again = tmp_path / "again.bin"
    write_llama2c(Source(read_checkpoint(path, REGISTRY), REGISTRY), again, 2, no_progress)
    assert again.read_bytes() == path.read_bytes()


def test_groups_over_the_ends_of_rows_are_expanded(tmp_path):
    """export.py asks only that groups divide a whole matrix: here rows of 96 in groups of 64."""
    model = random_model(dim=64, hidden=96)
    path = tmp_path / "m.bin"
    data = bytearray(struct.pack("<Ii7iBi", 0x616B3432, 2, 64, 96, 2, 4, 2, 640, 128, 0, 64))
    data += b"\0" * (256 - len(data))
    norms = [n for n in model.arrays if "norm" in n]
    for name, array in model.arrays.items():
        if name in norms:
            data += array.tobytes()
    for name in (n for n in model.arrays if n not in norms):
        groups = paired(model, name).reshape(-1, 64)
        scale = np.abs(groups).max(axis=1) / np.float32(127)
        data += np.round(groups / scale[:, None]).astype("i1").tobytes() + scale.tobytes()
    path.write_bytes(data)
    write_tokenizer_bin(model, tmp_path)
    checkpoint = read_checkpoint(path, REGISTRY)
    assert "model.layers.0.mlp.down_proj.weight" in checkpoint.arrays
    assert any("run over the ends of its rows of 96" in note for note in checkpoint.notes)
    assert "model.layers.0.mlp.up_proj.weight" in checkpoint.quantized
    assert difference(logits(checkpoint), logits(model)) < 0.15


@pytest.mark.parametrize("tokenizer", ["bin", "model"])
def test_tokenizer_beside(tokenizer, tmp_path):
    model = random_model()
    checkpoint = read_checkpoint(write(model, tmp_path, 1, tokenizer), REGISTRY)
    for text in ("Once upon a time", "Äpfel  and 🦙\n\tx", " a", ""):
        assert checkpoint.tokenizer.encode(text) == model.tokenizer.encode(text)
        assert checkpoint.tokenizer.decode(checkpoint.tokenizer.encode(text)) == text


def test_what_llama2c_cannot_run_is_refused(tmp_path):
    for model, complaint in (
            (random_model("qwen2"), "fixes rope theta at 10000"),
            (random_model(rms_norm_eps=1e-6), "fixes norm eps at 1e-05, the model has 1e-06"),
            (random_model(rope_scaling={"type": "linear", "factor": 2.0}), "no rope scaling"),
            (random_model(head_dim=32), "head_dim is 32"),
            (random_model(attention_bias=True), "has no biases")):
        with pytest.raises(ConfigError, match=complaint):
            write_llama2c(Source(model, REGISTRY), tmp_path / "x", 0, no_progress)
    with pytest.raises(TokenizerError, match="SentencePiece vocabularies only"):
        write_tokenizer_bin(random_model("llama3"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_without_a_tokenizer(tmp_path):
    path = write(random_model(), tmp_path, 1)
    (tmp_path / "tokenizer.bin").unlink()
    with pytest.raises(TokenizerError, match="has none of tokenizer"):
        read_checkpoint(path, REGISTRY).tokenizer.encode("a")
    assert difference(logits(path), logits(random_model())) < 2e-6
    with pytest.raises(CheckpointError, match="no known format"):
        (tmp_path / "text").write_text("no model at all, just text")
        read_checkpoint(tmp_path / "text", REGISTRY)


@pytest.mark.parametrize("shape", [(24,), (24, 5)])
def test_row_orders_are_inverse(shape):
    rows = np.arange(np.prod(shape)).reshape(shape)
    for heads in (1, 2, 3, 6):
        pairs = to_pairs(rows, heads)
        assert np.array_equal(to_halves(pairs, heads), rows)
        d = 24 // heads
        assert np.array_equal(pairs[1], rows[d // 2]) and np.array_equal(pairs[0], rows[0])


@pytest.mark.parametrize("size", [0, 3, 4, 40, 300])
def test_tokenizer_bin_truncated(size, tmp_path):
    path = write(random_model(), tmp_path, 1)
    file = tmp_path / "tokenizer.bin"
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(TokenizerError, match=r"tokenizer\.bin"):
        read_checkpoint(path, REGISTRY)
