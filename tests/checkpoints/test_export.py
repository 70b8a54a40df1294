"""python -m models.export: tests targets, options, what it refuses, and that a failure leaves no
trace."""

import json
import shutil

import numpy as np
import pytest
from format_models import REGISTRY, difference, expanded, logits

from models.checkpoints.base import SHIPPED, read_checkpoint
from models.engine.load import open_checkpoint
from models.engine.options import LoadOptions

WRITTEN = {  # what: model, target, options, largest difference of logits
    "llama2 hf": ("llama2", "hf", (), 0), "llama3 hf": ("llama3", "hf", (), 0),
    "qwen2 hf": ("qwen2", "hf", (), 0),
    "hf f32": ("llama3", "hf", ("--dtype", "f32"), 2e-6),
    "hf f16": ("qwen2", "hf", ("--dtype", "f16"), 1e-3),
    "hf int8": ("llama2", "hf", ("--quantize", "int8"), 0.05),
    "hf int8 tied": ("llama3", "hf", ("--quantize", "int8"), 0.05),
    "hf int4": ("qwen2", "hf", ("--quantize", "int4"), 0.6),
    "llama2c": ("llama2", "llama2c", (), 2e-6),
    "llama2c v1": ("llama2", "llama2c", ("--version", "1"), 2e-6),
    "llama2c int8": ("llama2", "llama2c", ("--quantize", "int8"), 0.05),
    "kuiper": ("llama2", "kuiper", (), 2e-6), "kuiper qwen2": ("qwen2", "kuiper", (), 2e-6),
    "kuiper int8": ("llama2", "kuiper", ("--quantize", "int8"), 0.05),
    "gguf": ("llama3", "gguf", (), 2e-6), "gguf f32": ("qwen2", "gguf", ("--dtype", "f32"), 2e-6),
    "gguf int8": ("llama2", "gguf", ("--quantize", "int8"), 0.05),
}


@pytest.mark.parametrize("what", WRITTEN)
def test_written(what, run_export, tmp_path):
    name, to, options, bound = WRITTEN[what]
    if to == "gguf":
        pytest.importorskip("gguf", reason="GGUF tests need the extra: pip install '.[gguf]'")
    code, out, err = run_export(f"stories-{name}", to, "model", *options)
    assert code == 0 and "of greedy tokens agree" in out, err
    back, model = read_checkpoint(tmp_path / "model", REGISTRY), read_checkpoint(
        f"stories-{name}", REGISTRY)
    assert difference(logits(back), logits(model)) <= bound
    assert back.tokenizer.encode("Once upon a time") == model.tokenizer.encode("Once upon a time")
    assert bool(back.quantized) == ("--quantize" in options)
    if bound < 0.1 and bool(back.quantized):
        assert difference(logits(back), logits(expanded(back))) < 2e-6
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_hf_folder_is_the_one_it_was_read_from(run_export, tmp_path):
    """Exporting changes nothing: the folder has the same dtype, tensors and configuration."""
    from safetensors.numpy import load_file
    for name in ("stories-llama2", "stories-qwen2"):
        assert run_export(name, "hf", name)[0] == 0
        ours, theirs = (load_file(p / name / "model.safetensors") for p in (tmp_path, SHIPPED))
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[n], theirs[n]) and ours[n].dtype == theirs[n].dtype
                   for n in ours)
        ours, theirs = (json.loads((p / name / "config.json").read_text())
                        for p in (tmp_path, SHIPPED))
        assert {k: v for k, v in theirs.items() if k not in ours} == {}


def test_transformers_reads_what_we_write(run_export, tmp_path):
    torch = pytest.importorskip("torch", reason="parity needs the extra: pip install '.[parity]'")
    transformers = pytest.importorskip("transformers", reason="parity needs '.[parity]'")
    pytest.importorskip("gguf", reason="needs the extra: pip install '.[gguf]'")
    for name in ("llama2", "llama3", "qwen2"):
        assert run_export(f"stories-{name}", "gguf", f"{name}.gguf", "--dtype", "f32")[0] == 0
        assert run_export(tmp_path / f"{name}.gguf", "hf", name)[0] == 0
        model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / name,
                                                                  dtype=torch.float32).eval()
        ids = list(range(5, 45))
        with torch.no_grad():
            theirs = model(torch.tensor([ids])).logits[0].numpy()
        with open_checkpoint(read_checkpoint(f"stories-{name}", REGISTRY),
                             LoadOptions(dtype="f32"), REGISTRY) as ours:
            assert difference(ours.logits(ids), theirs) < 1e-5


def test_any_format_to_any_other(run_export, tmp_path):
    """Export around: hf → llama2c → kuiper → gguf → hf, in float32 without loss."""
    pytest.importorskip("gguf", reason="needs the extra: pip install '.[gguf]'")
    last = "stories-llama2"
    for step, to in enumerate(("llama2c", "kuiper", "gguf", "hf")):
        (tmp_path / str(step)).mkdir()
        code, _, err = run_export(last, to, f"{step}/m")
        assert code == 0, err
        last = tmp_path / str(step) / "m"
    arrays, first = (read_checkpoint(m, REGISTRY).arrays for m in (last, "stories-llama2"))
    assert arrays.keys() == first.keys()
    assert all(np.array_equal(arrays[n], first[n]) for n in arrays)


def test_quantised_stays_as_it_is(run_export, tmp_path):
    """A quantised source, written in full precision, must mean the same numbers: also where a tied
    model's head was quantised and its embedding was not."""
    pytest.importorskip("gguf", reason="needs the extra: pip install '.[gguf]'")
    for scheme in ("int8", "int4"):
        (tmp_path / scheme).mkdir()
        assert run_export("stories-qwen2", "hf", f"{scheme}/q", "--quantize", scheme)[0] == 0
        assert run_export(tmp_path / scheme / "q", "gguf", f"{scheme}/m", "--dtype", "f32")[0] == 0
        quantised, plain = logits(tmp_path / scheme / "q"), logits(tmp_path / scheme / "m")
        assert difference(plain, quantised) < 5e-6


REFUSED = {  # what: model, target, options, complaint
    "model unknown": ("no-such", "hf", (), "no model at 'no-such'"),
    "int4 elsewhere": ("stories-llama2", "gguf", ("--quantize", "int4"), "holds int8, not int4"),
    "dtype of llama2c": ("stories-llama2", "llama2c", ("--dtype", "f16"), "not --dtype f16"),
    "dtype and quantize": ("stories-llama2", "gguf", ("--dtype", "f16", "--quantize", "int8"),
                           "not both"),
    "version elsewhere": ("stories-llama2", "hf", ("--version", "1"), "expected 0 or 1 with"),
    "version 2 in f32": ("stories-llama2", "llama2c", ("--version", "2"), "--quantize int8"),
    "version 1 in int8": ("stories-llama2", "llama2c", ("--version", "1", "--quantize", "int8"),
                          "--version 1"),
    "llama2c of BPE": ("stories-qwen2", "llama2c", (), "SentencePiece vocabularies only"),
    "kuiper of a head size": ("stories-llama3", "kuiper", ("--ignore-rope-scaling",),
                              "head_dim is 64"),
    "kuiper of scaling": ("stories-llama3", "kuiper", (), "computes no rope scaling"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what, run_export, tmp_path):
    model, to, options, complaint = REFUSED[what]
    code, out, err = run_export(model, to, "out", *options)
    assert code == 2 and not out and err.startswith("error: ") and complaint in err
    assert not list(tmp_path.iterdir())


def test_existing_output(run_export, tmp_path):
    (tmp_path / "m").write_text("precious")
    code, _, err = run_export("stories-llama2", "kuiper", "m")
    assert code == 2 and "pass --force to replace it" in err
    assert (tmp_path / "m").read_text() == "precious"
    assert run_export("stories-llama2", "kuiper", "m", "--force")[0] == 0
    assert run_export(tmp_path / "m", "llama2c", "m", "--force")[0] == 0  # over its own source
    folder = shutil.copytree(SHIPPED / "stories-qwen2", tmp_path / "f")
    (folder / "extra").write_text("")
    assert run_export("stories-llama2", "hf", "f")[0] == 2 and (folder / "extra").exists()
    assert run_export("stories-llama2", "hf", "f", "--force")[0] == 0
    assert not (folder / "extra").exists() and not (folder / "tokenizer.json").exists()


def test_a_file_where_a_folder_goes(run_export, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    for to, out, what in (("hf", "file", "is a file"), ("kuiper", "folder", "is a folder")):
        code, _, err = run_export("stories-llama2", to, out, "--force")
        assert code == 2 and what in err and "choose another name" in err


def test_another_model_s_tokenizer_is_not_replaced(run_export, tmp_path):
    (tmp_path / "tokenizer.model").write_text("of another model")
    code, _, err = run_export("stories-llama2", "kuiper", "m")
    assert code == 2 and "tokenizer.model exists and differs" in err
    assert [p.name for p in tmp_path.iterdir()] == ["tokenizer.model"]
