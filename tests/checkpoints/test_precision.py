"""Tests the choice of quantised matrices; groups and rows whose lengths do not agree."""

import json

import numpy as np
import pytest
from format_models import REGISTRY, difference, expanded, logits, random_model

import models
from core.errors import OptionError
from core.ops.quantized.quantize import quantize
from core.ops.quantized_linear import expand_weight
from models import export
from models.checkpoints.base import read_checkpoint
from models.checkpoints.quantization import Quantization
from models.checkpoints.source import Source
from models.checkpoints.targets import choose_target
from models.engine.load import open_checkpoint
from models.engine.options import LoadOptions

HEAD, LAYERS = "lm_head.weight", 3


def quantised(**options):
    with models.load("stories-llama2", **options) as model:
        return dict(model.session.weights.quantized)


def test_default_and_choices():
    every = quantised(quantize="int8")
    assert len(every) == 7 * LAYERS + 1 and HEAD in every
    assert not any("embed" in n or "norm" in n for n in every)
    kept = quantised(quantize="int8", keep=[HEAD, "*.down_proj.weight"])
    assert every.keys() - kept.keys() == {HEAD} | {n for n in every if "down_proj" in n}
    assert quantised(quantize="int8", keep=HEAD).keys() == every.keys() - {HEAD}  # one pattern
    only = quantised(quantize="int4", quantize_only="model.layers.1.*", keep="*.v_proj.weight")
    assert len(only) == 6 and all(n.startswith("model.layers.1.") for n in only)


@pytest.mark.parametrize("scheme", ["int8", "int4", "int4-symmetric"])
@pytest.mark.parametrize("group", [None, 48])
def test_schemes_and_group_sizes(scheme, group):
    layouts = set(quantised(quantize=scheme, group_size=group).values())
    layout, = layouts
    assert (layout.bits, layout.has_zeros) == (int(scheme[3]), scheme == "int4")
    assert layout.group_size == (group or (64 if scheme == "int8" else 128))


def test_a_tied_head_that_is_kept():
    """The embedding is the head then, not a second matrix."""
    with models.load("stories-qwen2", quantize="int8", keep="lm_head*") as model:
        assert HEAD not in model.session.weights.arrays
        assert len(model.session.weights.quantized) == 7 * model.config.layers


@pytest.mark.parametrize("options, complaint", [
    ({"quantize": "int8", "keep": "lm_heads"}, "--keep 'lm_heads' matches none of the 22 matrices"),
    ({"quantize": "int8", "keep": "*norm*"}, "matches none"),
    ({"quantize": "int4", "quantize_only": ["*up_proj*", "x"]}, "--quantize-only 'x' matches none"),
    ({"quantize": "int8", "keep": "*"}, "leave no matrix to quantise"),
    ({"keep": HEAD}, "give --quantize too"), ({"group_size": 64}, "give --quantize too"),
    ({"quantize": "int3"}, "expected one of int8, int4, int4-symmetric"),
    ({"quantize": "int8", "group_size": 0}, "--group-size 0: expected 1 to")])
def test_mistakes(options, complaint):
    with pytest.raises(OptionError, match=complaint.replace("*", r"\*")):
        models.load("stories-llama2", **options)


def test_on_the_command_line(run_cli, tmp_path):
    run = ("--max-new-tokens", "4", "--json", "--quantize", "int4-symmetric")
    done = run_cli(*run, "--keep", HEAD, "--quantize-only", "model.layers.*", "--group-size", "32",
                   code=0)
    assert len(json.loads(done.stdout)["tokens"]) == 4
    done = run_cli(*run, "--keep", "nothing*", code=2)
    assert "--keep 'nothing*' matches none of the 22 matrices" in done.stderr and not done.stdout
    assert "give --quantize too" in run_cli("--keep", HEAD, code=2).stderr


def test_exported_as_chosen(tmp_path, capsys):
    def run(to, *options):
        return export.main(["--model", "stories-llama2", "--to", to, "--out", str(tmp_path / to),
                            "--force", *options])
    chosen = ("--quantize", "int8", "--keep", HEAD, "--keep", "model.layers.0.*")
    assert run("hf", *chosen, "--group-size", "32") == 0
    back = read_checkpoint(tmp_path / "hf", REGISTRY)
    assert len(back.quantized) == 7 * (LAYERS - 1) and HEAD in back.arrays
    assert {q.group_size for q in back.quantized.values()} == {32}
    assert difference(logits(back), logits(expanded(back))) < 2e-6
    pytest.importorskip("gguf", reason="GGUF tests need the extra: pip install '.[gguf]'")
    assert run("gguf", *chosen) == 0
    back = read_checkpoint(tmp_path / "gguf", REGISTRY)
    assert len(back.quantized) == 6 * (LAYERS - 1) + 1 and HEAD in back.arrays
    assert "model.embed_tokens.weight" in back.quantized  # it stays in codes, as the file has it
    assert back.arrays["model.layers.1.mlp.down_proj.weight"].dtype == np.float16  # rows of 340
    original = read_checkpoint("stories-llama2", REGISTRY)
    assert np.array_equal(back.arrays[HEAD], original.arrays[HEAD])
    capsys.readouterr()
    for to, options, said in (
            ("gguf", ("--quantize", "int8", "--keep", "x"), "'x' matches none"),
            ("hf", ("--quantize", "int8", "--keep", "x"), "'x' matches none"),
            ("gguf", ("--quantize", "int8", "--group-size", "64"), "fixes its groups"),
            ("llama2c", chosen, "fixes which tensors are int8"),
            ("kuiper", ("--quantize", "int4-symmetric"), "holds int8, not int4")):
        assert run(to, *options) == 2 and said in capsys.readouterr().err


@pytest.mark.parametrize("bits, symmetric", [(8, True), (4, True), (4, False)])
@pytest.mark.parametrize("group", [7, 32, 100, 1000])
def test_rows_that_are_no_multiple_of_the_group(bits, symmetric, group):
    """The rule: groups start with each row, the last one is short, and it is quantised by its own
    values alone, to within half a step."""
    weight = np.random.default_rng(1).normal(0, 1, (5, 100)).astype(np.float32)
    weight[:, 96:] *= 100  # would spoil neighbours that shared the scale
    q = quantize(weight, bits, group, symmetric=symmetric)
    assert q.scales.shape == (5, -(-100 // group)) and (q.zeros is None) == symmetric
    back = expand_weight(q.codes, q.scales, q.zeros, bits, group, 100)
    for start in range(0, 100, group):
        part = slice(start, start + group)
        alone = quantize(weight[:, part], bits, group, symmetric=symmetric)
        assert np.array_equal(alone.scales[:, 0], q.scales[:, start // group])
        step = q.scales[:, start // group, None]
        assert (np.abs(back[:, part] - weight[:, part]) <= 0.5001 * step).all()


@pytest.mark.parametrize("scheme", ["int8", "int4", "int4-symmetric"])
def test_a_model_of_odd_rows(scheme, tmp_path):
    """Rows of 66 and 90 are cut in groups of 64, at load and on disk alike."""
    model = random_model(dim=66, hidden=90, heads=3, kv_heads=1)
    with open_checkpoint(model, LoadOptions(dtype="f32", quantize=scheme, group_size=64),
                         REGISTRY) as opened:
        ids = np.random.default_rng(3).integers(3, 640, 40).tolist()
        at_load = opened.logits(ids)
    source = Source(model, REGISTRY)
    target = choose_target("hf", source, None, Quantization.parse(scheme, 64), None)
    export.export(source, target, tmp_path / "m", REGISTRY, verify=False)
    back = read_checkpoint(tmp_path / "m", REGISTRY)
    assert np.array_equal(logits(back), at_load)
    assert difference(at_load, logits(expanded(back))) < 5e-6
    files = sum(f.stat().st_size for f in (tmp_path / "m").iterdir())
    assert files <= target.bytes_needed(source)
