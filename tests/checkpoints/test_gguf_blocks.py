"""GGUF's block types: each is compared with what the gguf package expands it to."""

import sys

import numpy as np
import pytest
from format_models import REGISTRY, difference, expanded, logits, random_model
from gguf_files import blocks, gguf, write_foreign

from core.errors import CheckpointError
from core.ops.quantized.layouts import BlockLayout, expand
from core.ops.quantized.layouts import QuantizedLayout as Q
from models.checkpoints.base import read_checkpoint
from models.checkpoints.gguf import reader
from models.checkpoints.gguf.blocks import block_layout, expand_blocks, unpacked
from models.checkpoints.gguf.types import SUPPORTED
from models.checkpoints.lazy import abstract_arrays
from models.checkpoints.source import Source

FLOATS = ["F32", "F16", "BF16"]
KEPT = {"Q8_0": Q(8, 32, False), "Q4_0": Q(4, 32, False), "IQ4_NL": Q(8, 32, False),
        "IQ4_XS": Q(8, 32, False), "TQ1_0": Q(4, 256, False), "TQ2_0": Q(4, 256, False),
        "MXFP4": Q(8, 32, False), "NVFP4": Q(8, 16, False),
        "Q4_1": BlockLayout(4, 32, 32, False, True), "Q5_0": BlockLayout(5, 32, 32, False, False),
        "Q5_1": BlockLayout(5, 32, 32, False, True), "Q2_K": BlockLayout(4, 16, 256, True, True),
        "Q3_K": BlockLayout(4, 16, 256, True, False), "Q4_K": BlockLayout(4, 32, 256, True, True),
        "Q5_K": BlockLayout(5, 32, 256, True, True), "Q6_K": BlockLayout(6, 16, 256, True, False)}
#: bytes in memory for a byte in the file, where it is more than 1.03
LARGER = {"Q8_0": 1.06, "Q4_0": 1.12, "IQ4_NL": 2, "IQ4_XS": 2.12, "TQ1_0": 2.45, "TQ2_0": 2,
          "MXFP4": 2.12, "NVFP4": 2.23, "Q2_K": 1.96, "Q3_K": 1.33}
EXPANDED = ["IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"]
# types that an older package may lack
KINDS = [k for k in (*KEPT, *EXPANDED) if k in gguf.GGMLQuantizationType.__members__]


def model_of(**keys):
    return random_model(**{"dim": 256, "hidden": 512, "layers": 1, "interleaved": False, **keys})


def test_every_type_is_here():
    """Read everything that the package can expand, and test it below."""
    theirs = {kind.name for kind in gguf.quants._type_traits} - {"BF16"}
    assert theirs == set(KINDS)
    ours = {t.name: (t.elements, t.nbytes) for t in SUPPORTED.values()}
    assert ours.keys() == {*FLOATS, *KEPT, *EXPANDED}
    for number, t in SUPPORTED.items():
        if t.name in (*FLOATS, *KINDS):
            kind = gguf.GGMLQuantizationType[t.name]
            assert number == kind and gguf.GGML_QUANT_SIZES[kind] == ours[t.name]


@pytest.mark.parametrize("kind", KINDS)
def test_blocks(kind):
    """Any bytes but infinite and enormous scales: the package is the judge."""
    elements, nbytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    raw = np.random.default_rng(3).integers(0, 256, (900, 512 // elements * nbytes), np.uint8)
    with np.errstate(all="ignore"):
        meant = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[kind])
    good = np.isfinite(meant).all(axis=1) & (np.abs(meant) < 1e30).all(axis=1)
    raw, meant = raw[good], meant[good]
    assert len(raw) > 100
    got = expand_blocks(raw, kind, meant.shape)
    if kind in EXPANDED:
        assert block_layout(kind) is None and np.array_equal(got, meant)
        return
    layout, parts = block_layout(kind), unpacked(raw, kind, meant.shape)
    assert layout == KEPT[kind]
    assert {n: (p.shape, p.dtype) for n, p in parts.items()} == {
        n: (s.shape, s.dtype.numpy) for n, s in layout.parts(*meant.shape).items()}
    assert np.array_equal(expand(layout, [parts.get(n) for n in layout.names], 512), got)
    assert np.array_equal(got, meant)
    assert sum(p.nbytes for p in parts.values()) <= LARGER.get(kind, 1.03) * raw.nbytes


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_scales_are_refused(kind):
    elements, nbytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    raw = np.full((2, 512 // elements * nbytes), 0xFF, np.uint8)  # NaN in every field
    if kind == "NVFP4":  # its scales cannot be anything but numbers
        assert np.isfinite(expand_blocks(raw, kind, (2, 512))).all()
        return
    with pytest.raises(CheckpointError, match=f"a {kind} tensor has scales that are not finite"):
        expand_blocks(raw, kind, (2, 512))


@pytest.mark.parametrize("kind", [*FLOATS, *KINDS])
@pytest.mark.parametrize("tied", [False, True], ids=["own head", "tied"])
def test_model(kind, tied, tmp_path):
    meant, path = write_foreign(tmp_path / "m.gguf", model_of(tied=tied), kind)
    checkpoint = read_checkpoint(path, REGISTRY)
    assert {*checkpoint.quantized.values()} == ({KEPT[kind]} if kind in KEPT else set())
    if kind in KEPT:  # 7 projections, the embedding, and the head unless it is tied
        count = 9 - tied
        assert len(checkpoint.quantized) == count and f"{count} {kind}" in checkpoint.notes[0]
    assert difference(logits(checkpoint), logits(expanded(checkpoint))) < 2e-6
    source = Source(checkpoint, REGISTRY)
    for name, array in meant.items():
        got = source.array(name, pairs=True).astype(np.float32)
        assert np.array_equal(got, array)


def test_expansion_is_counted_and_costs_nothing_before_it_is_read(tmp_path, monkeypatch):
    _, path = write_foreign(tmp_path / "m.gguf", model_of(), "IQ2_XS")

    def never(*_):
        raise AssertionError("a tensor was read")
    monkeypatch.setattr(reader, "expand_blocks", never)
    checkpoint = read_checkpoint(path, REGISTRY)
    arrays = abstract_arrays(checkpoint.arrays)
    assert arrays["model.layers.0.mlp.down_proj.weight"].shape == (256, 512)
    # 2 of 640 x 256, 2 of 256 x 256, 2 of 128 x 256, 3 of 512 x 256
    count = 2 * 640 * 256 + 2 * 256 * 256 + 2 * 128 * 256 + 3 * 512 * 256
    wide, stored = f"{count * 4 / 2**20:.1f} MiB", f"{count / 256 * 74 / 2**20:.1f}"
    assert checkpoint.notes == [
        f"expanded to f32: 9 IQ2_XS (no kernel takes these codes); {wide} in place of {stored}"]


def test_mixture_of_a_qwen2_of_896_columns(tmp_path):
    """Hold the types that llama-quantize gives Qwen2.5-0.5B for Q4_K_M: rows that 256 does not
    divide are Q5_0 and Q8_0."""
    def kind(name):
        part = name.split(".")[-2]
        if name.endswith("bias") or part.endswith("norm"):
            return "F32"
        return {"attn_v": "Q8_0", "token_embd": "Q8_0", "ffn_down": "Q6_K"}.get(part, "Q5_0")
    model = model_of(family="qwen2", dim=896, heads=14, kv_heads=2, tied=True)
    meant, path = write_foreign(tmp_path / "m.gguf", model, kind, tokenizer=False)
    checkpoint = read_checkpoint(path, REGISTRY)
    assert {*checkpoint.notes[0].removeprefix("kept quantised: ").split(", ")} == {
        "2 Q8_0", "5 Q5_0", "1 Q6_K"}
    source = Source(checkpoint, REGISTRY)
    for name, array in meant.items():
        assert np.array_equal(source.array(name, pairs=False), array), name
    assert difference(logits(checkpoint), logits(expanded(checkpoint))) < 2e-6


def test_norms_and_biases_in_blocks(tmp_path):
    def kind(name):
        part = name.split(".")[-2]
        return "Q5_0" if name.endswith("bias") else "Q6_K" if part.endswith("norm") else "F32"
    meant, path = write_foreign(tmp_path / "m.gguf", model_of(family="qwen2"), kind,
                                tokenizer=False)
    checkpoint = read_checkpoint(path, REGISTRY)
    assert not checkpoint.quantized
    assert checkpoint.notes[0].startswith("expanded to f32: 3 Q6_K, 3 Q5_0 (norms and biases")
    for name, array in meant.items():
        assert np.array_equal(checkpoint.arrays[name], array), name


def test_the_package_is_needed_for_few_types(tmp_path, monkeypatch):
    files = {kind: write_foreign(tmp_path / kind, model_of(), kind)[1]
             for kind in ("Q2_K", "IQ4_XS", "IQ3_S")}
    monkeypatch.setitem(sys.modules, "gguf", None)
    for kind in ("Q2_K", "IQ4_XS"):
        assert np.isfinite(logits(files[kind])).all()
    with pytest.raises(CheckpointError, match=r"of type IQ3_S.*pip install gguf"):
        read_checkpoint(files["IQ3_S"], REGISTRY)


def test_random_blocks_are_of_the_size_of_weights():
    """The files above would prove little with weights of nothing, or without end."""
    rng = np.random.default_rng(0)
    for kind in KINDS:
        raw = blocks(rng.normal(0, 0.07, (64, 512)).astype(np.float32), kind, rng)
        values = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[kind])
        assert 0.02 < values.std() < 0.3, kind
