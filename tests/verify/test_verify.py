"""models.verify: tests what it finds, what it says, its JSON and exit codes; capsules; saved
answers."""

import json
from dataclasses import replace

import numpy as np
import pytest

import models
from core.errors import InputError
from core.installed.registry import default_registry
from core.verify.capsules.capsule import Capsule
from core.verify.compare import Budget
from core.verify.vote import Voter, sources_of, take_vote
from models.verify import main

SHORT = ["--max-new-tokens", "4", "--prompt", "Once upon a time"]


def verify(capsys, *args, code):
    """Return (standard output, standard error) of models.verify in this process."""
    assert main([*args]) == code, capsys.readouterr()
    said = capsys.readouterr()
    return said.out, said.err


@pytest.fixture
def capsule(tmp_path, capsys):
    """Save a capsule of one attention call."""
    verify(capsys, "cpu_numpy", "reference", *SHORT, "--capture", "layers.1.attention",
           "--capsules", str(tmp_path), code=0)
    (path,) = tmp_path.glob("*.npz")
    return path


def test_a_backend_and_itself_without_fusion(capsys):
    out, _ = verify(capsys, "cpu_numpy", "cpu_numpy+no-fusion", "reference", *SHORT, "--blame",
                    code=0)
    assert "the 4 tokens are equal" in out and "every kernel is within its budget" in out
    assert "no difference: every value has equal bits" in out or "it is rounding" in out
    out, _ = verify(capsys, "cpu_numpy", "cpu_numpy+no-fusion", *SHORT, "--json", code=0)
    found = json.loads(out)
    assert found["ok"] and found["faults"] == [] and len(found["tokens"]["cpu_numpy"]) == 4
    fused = [r for r in found["checks"]["cpu_numpy"] if r["op"] == "gate_up_swiglu"]
    assert fused[0]["calls"] > 0 and not fused[0]["same_kernel"]


@pytest.mark.parametrize(("args", "complaint"), [
    (["cpu_numpy"], "two or more"), (["reference", "reference"], "two or more"),
    (["cpu_numpy", "cpu_numpy"], "different"), (["cpu_numpy", "nonsense"], "unknown backend"),
    (["cpu_numpy", "cpu_numpy+attention=nonsense"], "nonsense"),
    (["cpu_numpy", "reference+no-fusion"], "takes no options"),
    (["cpu_numpy", "reference", "--capture", "no.such"], "matches no node"),
    (["cpu_numpy", "reference", "--max-new-tokens", "0"], "at least 1"),
    (["--against", "missing.npz"], "no such file"),
    (["--replay", "missing.npz"], "no such capsule"),
    (["cpu_numpy", "reference", "--repeat", "3"], "go with --replay"),
    (["cpu_numpy", "reference", "--shrink"], "go with --replay"),
    (["cpu_numpy", "reference", "--save", "x.npz"], "take one backend"),
])
def test_bad_input(capsys, args, complaint):
    out, err = verify(capsys, *args, code=2)
    assert complaint in err and not out


def test_capsules_replay(capsule, capsys):
    out, _ = verify(capsys, "--replay", str(capsule), code=0)
    assert "cpu_numpy:attention: `out` ok, the recorded bits" in out
    assert "captured on request" in out
    out, _ = verify(capsys, "--replay", str(capsule), "--backend", "cpu_numpy,reference", "--json",
                    code=0)
    found = json.loads(out)
    assert [r["who"] for r in found["results"]] == ["recorded: cpu_numpy:attention", "cpu_numpy",
                                                    "reference"]
    assert found["entry"]["node"] == "layers.1.attention" and "numpy" in found["versions"]
    assert len(found["source"]) == 64 and {"device", "processor"} <= set(found["versions"])
    assert [r["runs"] for r in found["results"]] == [1, 3, 1]
    out, _ = verify(capsys, "--replay", str(capsule), "--repeat", "5", "--json", code=0)
    assert json.loads(out)["results"][1]["runs"] == 5
    assert "at least 1" in verify(capsys, "--replay", str(capsule), "--repeat", "0", code=2)[1]
    assert "no backend of this replay is wrong" in verify(
        capsys, "--replay", str(capsule), "--shrink", code=2)[1]


def test_a_capsule_of_a_wrong_result_says_so(capsule, capsys):
    good = Capsule.read(capsule)
    good.outputs["out"].reshape(-1)[7] += 1
    bad = good.write(capsule.with_name("bad.npz"))
    out, _ = verify(capsys, "--replay", str(bad), "--backend", "cpu_numpy,reference", "--json",
                    code=1)
    recorded, again, reference = json.loads(out)["results"]
    assert not recorded["ok"] and not again["same_bits"] and reference["ok"]
    assert again["broken"] == ["same kernel, same source, other bits than recorded: it depends on "
                               "more than its inputs"]
    other = Capsule.read(bad)
    replace(other, source="0" * 64).write(bad)
    out, _ = verify(capsys, "--replay", str(bad), code=0)
    assert "cpu_numpy:attention: note: another source than recorded" in out
    replace(other, versions={**other.versions, "numpy": "1.0"}).write(bad)
    out, _ = verify(capsys, "--replay", str(bad), code=0)
    assert "the same source, but other surroundings: numpy (1.0 then, " in out


def test_16_bit_and_quantised_capsules_keep_their_bits(tmp_path, capsys):
    for kind in (["--kv-dtype", "bf16", "--capture", "*.0.kv_cache_write"],
                 ["--quantize", "int4", "--capture", "layers.0.o_proj"],
                 ["--capture", "layers.0.swiglu"]):
        folder = tmp_path / kind[-1].replace("*", "")
        verify(capsys, "cpu_numpy", "reference", *SHORT, *kind, "--capsules", str(folder), code=0)
        (path,) = folder.glob("*.npz")
        assert "the recorded bits" in verify(capsys, "--replay", str(path), code=0)[0]


def test_damaged_capsules_are_clear_errors(capsule, capsys):
    whole = capsule.read_bytes()
    bad = capsule.with_name("bad.npz")
    for step in range(24):  # cut short, then with bytes turned over
        bad.write_bytes(whole[:len(whole) * step // 24])
        assert "not a usable replay capsule" in verify(capsys, "--replay", str(bad), code=2)[1]
    np.savez(bad, header=np.frombuffer(b'{"format": "other"}', np.uint8))
    assert "format is 'other'" in verify(capsys, "--replay", str(bad), code=2)[1]
    np.savez(bad, header=np.array([{"a": 1}], object))
    assert "not a usable" in verify(capsys, "--replay", str(bad), code=2)[1]
    rng = np.random.default_rng(5)
    for _ in range(40):
        data = bytearray(whole)
        data[rng.integers(len(data))] ^= 0xFF
        bad.write_bytes(bytes(data))
        try:
            Capsule.read(bad)
        except InputError as error:
            assert "capsule" in str(error)


def test_check_leaves_a_capsule_and_stops(tmp_path):
    """A NaN in a weight: --check-finite names the node, and the capsule replays."""
    with models.load("stories-llama2") as model:
        from core.errors import CheckError
        from core.verify.capsules.recorder import FiniteCheck, Recorder
        name = "model.layers.1.mlp.down_proj.weight"
        weights = np.array(model.session.weights.arrays[name])
        weights[3, 4] = np.nan
        model.session.weights.tensor(name, model.session._backend.allocator).numpy()
        model.session.weights.arrays[name] = weights
        recorder = Recorder(tmp_path)
        with pytest.raises(CheckError, match=r"layers\.1\.mlp.*the call is in "), \
                model.session.observed(FiniteCheck(recorder)):
            model.generate("Once", max_new_tokens=2).run()
        (path,) = recorder.written
        assert np.isnan(Capsule.read(path).inputs["weight"]).sum() == 1


def test_saved_answers(tmp_path, capsys):
    path = tmp_path / "a.npz"
    verify(capsys, "cpu_numpy", *SHORT, "--save", str(path), code=0)
    assert "exists" in verify(capsys, "cpu_numpy", *SHORT, "--save", str(path), code=2)[1]
    verify(capsys, "cpu_numpy", *SHORT, "--save", str(path), "--force", code=0)
    out, _ = verify(capsys, "cpu_numpy+no-fusion", "--against", str(path), *SHORT, code=0)
    assert "greedy tokens: 4 of 4 equal" in out and "layer 1" in out
    with np.load(path) as file:
        arrays = {k: file[k] for k in file.files}
    arrays["hidden"][2] *= 1.01
    arrays["logits"] = arrays["logits"] * 1.01
    np.savez(path, **arrays)
    out, _ = verify(capsys, "--against", str(path), *SHORT, "--json", code=1)
    found = json.loads(out)
    assert found["first_bad_layer"] == 2 and not found["ok"] and found["parting"] is None
    arrays["tokens"][2] = 0  # far from a tie: our token is well ahead of it
    np.savez(path, **arrays)
    out, _ = verify(capsys, "--against", str(path), *SHORT, "--json", code=1)
    found = json.loads(out)
    assert found["parting"] == 2 and found["gap"] > 0.01 and not found["near_tie"]
    out, err = verify(capsys, "--against", str(path), "--prompt", "Another", code=2)
    assert "the same prompt" in err
    path.write_bytes(path.read_bytes()[:500])
    assert "not usable saved logits" in verify(capsys, "--against", str(path), code=2)[1]


def test_against_transformers(capsys):
    pytest.importorskip("transformers", reason="parity needs '.[parity]'")
    pytest.importorskip("torch", reason="parity needs '.[parity]'")
    out, _ = verify(capsys, "cpu_numpy", "--model", "stories-qwen2", "--against", "hf",
                    "--max-new-tokens", "16", "--prompt", "One day", "--json", code=0)
    found = json.loads(out)
    assert found["ok"] and found["tokens_compared"] == 16 and found["parting"] is None
    assert len(found["layers_max_rel"]) == 5 and max(found["layers_max_rel"]) < 1e-4


def test_votes():
    a, off = np.ones((2, 4), np.float32), np.full((2, 4), 1.1, np.float32)
    budget = {"out": Budget(1e-6, 1e-12, 1e-6)}

    def vote(*voters):
        return take_vote([Voter(n, {"out": x}, frozenset(s)) for n, x, s in voters], budget)
    found = vote(("x", a, "1"), ("y", a, "2"), ("z", off, "3"))
    assert found.outliers == ("z",) and found.majority == ("x", "y") and found.votes == 3
    # two that share a source have one vote: nobody is the outlier of a tie
    tied = vote(("x", off, "1"), ("y", off, "12"), ("z", a, "3"))
    assert tied.outliers == () and tied.votes == 2 and tied.shared == (("x", "y"),)
    assert "share source and are one vote" in str(tied)
    assert vote(("x", off, "1"), ("y", off, "12"), ("z", a, "3"), ("w", a, "4")
                ).outliers == ("x", "y")
    assert str(vote(("x", a, "1"), ("y", a, "2"))) == "all agree"
    nothing = vote(("x", a, "1"), ("y", off, "2"))
    assert nothing.outliers == () and "no majority" in str(nothing)


def test_sources_tell_copies_from_independent_kernels():
    registry = default_registry()
    (add,), (swiglu,) = (registry.kernels("cpu_numpy", op) for op in ("add", "swiglu"))
    assert sources_of([add], registry) == sources_of([add], registry)
    assert not sources_of([add], registry) & sources_of([swiglu], registry)
    if registry.unavailable("cpu_numba") is None:
        (other,) = registry.kernels("cpu_numba", "add")
        assert not sources_of([add], registry) & sources_of([other], registry)


