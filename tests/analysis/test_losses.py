"""models.export --report: its losses are what independent computations find."""

import json

import numpy as np
import pytest

import models
from core.installed.registry import default_registry
from core.ops.quantized.quantize import quantize
from core.ops.quantized_linear import expand_weight
from models import export
from models.analysis.losses import measure_losses, simulated
from models.checkpoints.base import read_checkpoint
from models.checkpoints.quantization import Quantization
from models.checkpoints.source import Source

REGISTRY = default_registry()
TEXT = "Once upon a time there was a little fox who lived near the river. She was happy."


def log_softmax(logits):
    logits = logits.astype(np.float64)
    return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)


@pytest.mark.parametrize("name", ["stories-llama2", "stories-llama3", "stories-qwen2"])
@pytest.mark.parametrize("scheme", ["int8", "int4"])
def test_the_divergence_is_that_of_the_quantised_kernels(name, scheme):
    """The report uses dense products over expanded weights, models.load the kernels over codes."""
    before = read_checkpoint(name, REGISTRY)
    after = simulated(Source(before, REGISTRY), None, Quantization.parse(scheme))
    found = measure_losses(before, after, REGISTRY, text=TEXT, leave_out=False)
    with models.load(name, dtype="f32") as model:
        ids = model.encode(TEXT)
        full = log_softmax(model.logits(ids))
    with models.load(name, dtype="f32", quantize=scheme) as model:
        less = log_softmax(model.logits(ids))
        assert found["bytes_after"] == sum(
            a.nbytes for n, a in model.session.weights.arrays.items() if n != "rope.inv_freq")
    kl = (np.exp(full) * (full - less)).sum(-1)
    assert found["kl_mean"] == pytest.approx(kl.mean(), rel=1e-2, abs=1e-7)
    assert found["kl_max"] == pytest.approx(kl.max(), rel=1e-2, abs=1e-6)
    assert found["greedy_agreement"] == (full.argmax(-1) == less.argmax(-1)).mean()
    assert found["tokens"] == len(ids) and 0 < found["bytes_after"] < found["bytes_before"]


def test_errors_by_tensor_and_its_worst_group():
    before = read_checkpoint("stories-llama2", REGISTRY)
    after = simulated(Source(before, REGISTRY), None, Quantization.parse("int4"))
    found = measure_losses(before, after, REGISTRY, text=TEXT, leave_out=False)
    assert len(found["tensors"]) == 22 and found["unchanged"] == 8  # 3 layers x 7 and the head
    (row,) = [r for r in found["tensors"] if r["tensor"] == "model.layers.2.mlp.down_proj.weight"]
    full = np.array(before.arrays[row["tensor"]], np.float64)
    q = quantize(full.astype(np.float32), 4)
    changed = expand_weight(q.codes, q.scales, q.zeros, q.bits, q.group_size, full.shape[1])
    error = changed - full
    assert row["relative_error"] == pytest.approx(np.linalg.norm(error) / np.linalg.norm(full))
    groups = {(n, g): np.linalg.norm(error[n, 128 * g:128 * g + 128])
              / np.linalg.norm(full[n, 128 * g:128 * g + 128])
              for n in range(full.shape[0]) for g in range(3)}  # 336 columns: the last is short
    assert tuple(row["worst_group"]) == max(groups, key=groups.get)
    assert row["worst_group_error"] == pytest.approx(max(groups.values()))


def test_leaving_one_out_is_keeping_it():
    """A tensor's row holds the divergence of a model in which --keep names it."""
    before = read_checkpoint("stories-llama2", REGISTRY)
    source = Source(before, REGISTRY)
    found = measure_losses(before, simulated(source, None, Quantization.parse("int4")), REGISTRY,
                           text=TEXT)
    rows = {r["tensor"]: r for r in found["tensors"]}
    for name in ("lm_head.weight", "model.layers.1.self_attn.q_proj.weight"):
        kept = simulated(source, None, Quantization.parse("int4", keep=name))
        alone = measure_losses(before, kept, REGISTRY, text=TEXT, leave_out=False)
        assert rows[name]["kl_without"] == alone["kl_mean"]
        assert rows[name]["kl_share"] == 1 - alone["kl_mean"] / found["kl_mean"]
    assert max(rows, key=lambda n: rows[n]["kl_share"]) == "lm_head.weight"


@pytest.mark.parametrize("to, file, options", [
    ("kuiper", "m.bin", []), ("llama2c", "m.bin", []), ("hf", "m", ["--quantize", "int8"])])
def test_what_was_written_is_reported(to, file, options, tmp_path, capsys):
    out = tmp_path / "r.json"
    assert export.main(["--model", "stories-llama2", "--to", to, "--out", str(tmp_path / file),
                        *options, "--no-verify", "--report", "--no-leave-out",
                        "--report-json", str(out)]) == 0
    found = json.loads(out.read_text())
    if options:
        assert 0 < found["kl_mean"] < 1e-4 and len(found["tensors"]) == 22
    else:
        assert found["kl_mean"] == 0 and not found["tensors"]  # f32 loses nothing
    assert f"mean {found['kl_mean']:.2e}" in capsys.readouterr().out


def test_a_dry_run_writes_what_was_asked_for_and_no_model(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text(TEXT)
    asked = ["--model", "stories-qwen2", "--report", "--dry-run", "--report-text", "text"]
    plot = ["--report-plot", "p.svg"] if _has_matplotlib() else []
    assert export.main([*asked, "--quantize", "int8", "--report-json", "r.json", *plot]) == 0
    shown = capsys.readouterr().out
    assert "no model was written" in shown and "greedy tokens" in shown
    assert "its" in shown and "share" in shown, "the words of a heading stand below each other"
    assert {p.name for p in tmp_path.iterdir()} == {"text", "r.json", *plot[1:]}
    for options, says in (([], "give --quantize or --dtype"), (["--out", "x"], "give no --out"),
                          (["--dtype", "f16", "--report-plot", "x.doc"], "ends in .png"),
                          (["--dtype", "f16", "--report-json", "no/x"], "does not exist")):
        assert export.main([*asked, *options]) == 2
        assert says in capsys.readouterr().err
    assert export.main(["--model", "stories-qwen2"]) == 2
    (tmp_path / "text").write_text("a")
    assert export.main([*asked, "--dtype", "f16"]) in (0, 2)


def _has_matplotlib():
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True
