"""The bench: must measure what it says, and say when what it measured is wrong."""

import json

import numpy as np
import pytest

from models import bench
from models.checkpoints.random import SHAPES, random_checkpoint
from models.engine.load import open_checkpoint
from models.engine.options import LoadOptions


@pytest.mark.parametrize("quantize", [None, "int8"])
def test_bench(capsys, quantize):
    options = ["--shape", "qwen2.5-0.5b", "--layers", "1", "--tokens", "3", "--repeat", "2",
               "--stored", "bf16", "--prompt", "4", "--json"]
    code = bench.main([*options, *(["--quantize", quantize] if quantize else [])])
    (row,) = json.loads(capsys.readouterr().out)
    assert code == 0 and row["ok"] and ", 0 wrong" in row["verdict"]
    matrices = 151936 * 896 + 896 * (2 * 896 + 2 * 128) + 3 * 896 * 4864
    assert row["matrix_bytes"] == (matrices * 2 if quantize is None else matrices * (1 + 4 / 64))
    assert row["head_flops"] == 2 * 151936 * 896
    assert row["row_flops"] + row["head_flops"] == 2 * matrices and row["chunk"] == 4
    assert 0 < row["host_step_s"] < 10 / row["decode_tokens_per_s"]
    assert row["decode_tokens_per_s"] > 0 and row["bandwidth_share"] > 0
    assert len(row["ledger"]) == 12


def test_a_wrong_kernel_is_reported(capsys, monkeypatch):
    from core.installed.registry import default_registry
    (kernel,) = default_registry().kernels("cpu_numpy", "rope")
    real = kernel.bind

    def swapped(*arrays, interleaved, **rest):
        return real(*arrays, interleaved=not interleaved, **rest)
    object.__setattr__(kernel, "bind", swapped)
    try:
        code = bench.main(["--shape", "qwen2.5-0.5b", "--layers", "1", "--tokens", "2",
                           "--repeat", "1", "--prompt", "2"])
    finally:
        object.__setattr__(kernel, "bind", real)
    out = capsys.readouterr().out
    assert code == 1 and "NO" in out and ", 0 wrong" not in out


def test_profile(capsys):
    """Every kernel of both plans once, the bytes are those of the matrices, the state is kept."""
    assert bench.main(["--shape", "qwen2.5-0.5b", "--layers", "2", "--tokens", "3", "--repeat", "1",
                       "--prompt", "4", "--profile", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    decode, prompt = row["profile"]
    assert decode["what"] == "decode" and decode["step_s"] > 0
    kernels = {k["node"]: k for k in decode["kernels"]}
    down = kernels["layers.*.down_proj"]
    assert (down["op"], down["calls"]) == ("linear", 2)
    assert 0.99 < down["nbytes"] / (2 * 4 * (896 * 4864 + 4864 + 2 * 896)) < 1.01
    assert down["flops"] == 2 * 2 * 896 * 4864
    (prompted,) = (k for k in prompt["kernels"] if k["node"] == "layers.*.down_proj")
    assert prompted["flops"] == (4 + 1) * down["flops"] / 2, "of the last layer, one row of four"
    seconds = [k["seconds"] for k in decode["kernels"]]
    assert seconds == sorted(seconds, reverse=True) and min(seconds) > 0


def test_each_plan_is_profiled_with_its_own_lengths(story, monkeypatch):
    """Plans share them: what a decode step left would make the prompt's attention one query."""
    from models.analysis import profile
    found = {}

    def spy(plan, what, bandwidth):
        tensors = {v.name: plan.tensor(v) for v in plan.graph.roots("input")}
        found[what] = [tensors[name].numpy().tolist() for name in ("query_starts", "seq_lens")]
    monkeypatch.setattr(profile, "profiled", spy)
    ids = story.encode("Once upon a time")
    story.generate(ids, max_new_tokens=4).run()
    profile.profile_parts(story.session, ids, None)
    n = len(ids)
    assert found == {"prompt": [[0, n], [n]], "decode": [[0, 1], [n + 1]]}


def test_profiling_keeps_the_sequence(story):
    from models.analysis.timing import profile
    ids = story.encode("Once upon a time")
    story.session.truncate()
    story.session.prefill(ids)
    expected = [story.session.step() for _ in range(8)]
    story.session.truncate()
    story.session.prefill(ids)
    found = [story.session.step() for _ in range(4)]
    rows = profile(story.session.decoder)
    every = len(story.session.decoder.bindings)
    assert sum(r.calls for r in rows) == every - 1  # all but `advance`
    found += [story.session.step() for _ in range(4)]
    assert found == expected


def test_bad_options(capsys):
    assert bench.main(["--tokens", "0"]) == 2
    assert "--tokens 2" in capsys.readouterr().err
    assert bench.main(["--shape", "qwen2.5-0.5b", "--backend", "abacus"]) == 2


@pytest.mark.parametrize("text", ["qwen", "qwen2.5-0.5b:f64", "qwen2.5-0.5b:f32:0",
                                  "qwen2.5-0.5b:f32:1:1", "qwen2.5-0.5b:f32:-1"])
def test_bad_names_of_random_models(text):
    import models
    from core.errors import CheckpointError
    with pytest.raises(CheckpointError, match=r"expected random:SHAPE\[:DTYPE\[:LAYERS\]\]"):
        models.load(f"random:{text}")


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_build(name):
    """One layer of each published shape is a whole model: every tensor has its place."""
    from core.installed.registry import default_registry
    checkpoint = random_checkpoint(name, "bf16", layers=1)
    values = checkpoint.arrays["model.embed_tokens.weight"][:64].astype(np.float32)
    assert 0.5 < values.std() * checkpoint.config.data["hidden_size"] ** 0.5 < 1.5
    with open_checkpoint(checkpoint, LoadOptions(max_context=16), default_registry()) as model:
        assert np.isfinite(model.logits([1, 2, 3])).all()


def test_random_weights_are_a_model_by_name():
    import models
    with models.load("random:qwen2.5-0.5b:bf16:1", max_context=16) as model:
        assert model.config.layers == 1
        assert model.session.weights.arrays["model.norm.weight"].dtype == "bfloat16"
        assert model.logits([1, 2, 3]).shape == (3, 151936)
