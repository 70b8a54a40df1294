"""A replay finds what one run hides: races, hidden state, stale scratch, destroyed inputs.

A capsule shrinks to the smallest call that is still wrong.
"""

import ctypes

import numpy as np
import pytest
from suspect_backend import spoil, with_suspect

import models
from core.ir.op import OPS
from core.plugins.kernel import Kernel
from core.verify.capsules.capsule import Capsule
from core.verify.capsules.recorder import Recorder
from core.verify.capsules.replay import replay
from core.verify.capsules.shrink import shrink
from core.verify.crosscheck import CrossCheck
from models.verify import main

PROMPT = [1, 40, 50, 60, 70, 80, 90, 100, 110, 120, 130, 140, 150, 160, 170, 180, 190, 200]


def right(array):
    """Leave a result as the definition gives it."""


def captured(registry, folder, *nodes, steps=2, against="reference"):
    """Return the first capsule of a checked run of stories-llama3."""
    recorder = Recorder(folder, nodes)
    with models.load("stories-llama3", backend="suspect,cpu_numpy", registry=registry, fusion=False,
                     max_context=64) as model, \
            model.session.observed(CrossCheck(registry, [against], recorder=recorder)):
        model.session.prefill(PROMPT)
        for _ in range(steps):
            model.session.step()
    return Capsule.read(recorder.written[0])


def again(capsule, registry, **options):
    return replay(capsule, ["suspect"], registry, **options)[1]


def test_a_race(tmp_path):
    count = [0]

    def race(array):
        count[0] += 1
        if count[0] % 4 == 1:
            array[..., 0] += 1
    registry = with_suspect(OPS["rms_norm"], race)
    capsule = captured(registry, tmp_path)
    done = again(capsule, registry, repeat=8)
    assert not done.ok and done.runs == 8
    assert any(text.startswith("a race, or hidden state: ") for text in done.broken)


def test_right_now_but_not_then(tmp_path):
    """The recorded result was wrong; the same kernel gives a right one each time."""
    first = [True]

    def once(array):
        if first.pop() if first else False:
            array[..., 0] += 1
    registry = with_suspect(OPS["rms_norm"], once)
    capsule = captured(registry, tmp_path)
    done = again(capsule, registry)
    assert not done.ok and done.verdicts["out"].ok
    assert done.broken == ["same kernel, same source, other bits than recorded: it depends on more "
                           "than its inputs"]


def test_stale_outputs(tmp_path):
    stale = [0.0]
    registry = with_suspect(OPS["rms_norm"], right, lambda ins, outs: outs[0].__iadd__(stale[0]))
    capsule = captured(registry, tmp_path, "layers.0.input_layernorm")
    (old,) = registry._kernels["suspect"]["rms_norm"]

    def bind(x, weight, out, *, eps):
        inner = old.bind(x, weight, out, eps=eps)

        def launch():
            stale[0] = 1e-6 if out[0, 0] == 0 else 0.0
            inner()
        return launch
    kernel = Kernel("rms_norm", "suspect", "spoilt", bind, old.dtypes)
    registry._kernels["suspect"]["rms_norm"] = [kernel]
    registry.sources[kernel] = "test"
    done = again(capsule, registry)
    assert any(text.startswith("reads its outputs or its workspace before it writes them")
               for text in done.broken), done.broken


def test_a_destroyed_input_is_whole_in_the_capsule(tmp_path):
    registry = with_suspect(OPS["rms_norm"], right, lambda ins, outs: ins[0].fill(0))
    for against in ("reference", "cpu_numpy"):
        capsule = captured(registry, tmp_path / against, against=against)
        assert np.abs(capsule.inputs["x"]).max() > 0
        assert "changed its input `x`" in capsule.reason
        done = again(capsule, registry)
        assert not done.ok and done.verdicts["out"].ok and done.same_bits
        assert "suspect:spoilt changed its input `x`" in done.broken[0]


@pytest.mark.parametrize("nbytes", [4, 64, 4096])
def test_a_write_beyond_the_output(nbytes, tmp_path):
    def beyond(ins, outs):
        ctypes.memset(outs[0].ctypes.data + outs[0].nbytes, 0x41, nbytes)
    registry = with_suspect(OPS["rms_norm"], right, beyond)
    done = again(captured(registry, tmp_path), registry)
    assert done.broken == [f"suspect:spoilt wrote {nbytes} bytes beyond `out`, from 0 bytes after "
                           "its end"]


def test_shrinking_attention(tmp_path):
    """Wrong beyond 9 tokens, in the second key/value head, at the rows after the first."""
    def long(ins, outs):
        if ins[5][0] > 9 and outs[0].shape[1] > 2:
            outs[0][-1, -1] += 1
    registry = with_suspect(OPS["attention"], right, long)
    capsule = captured(registry, tmp_path)
    small = shrink(capsule, "suspect", registry, repeat=1)
    shape = small.inputs["q"].shape
    assert int(small.inputs["seq_lens"][0]) == 10 and shape[0] == 1 and shape[1] == 4
    assert shape[2] < capsule.inputs["q"].shape[2]
    assert small.inputs["cache"].shape[1] == 1 and "made smaller" in small.reason
    path = small.write(tmp_path / "small.npz")
    assert not again(Capsule.read(path), registry).ok


def test_shrinking_rows(tmp_path):
    registry = with_suspect(OPS["linear"], lambda a: spoil(a) if len(a) > 3 else None)
    capsule = captured(registry, tmp_path)
    small = shrink(capsule, "suspect", registry, repeat=1)
    assert small.inputs["x"].shape == (4, 1) and small.inputs["weight"].shape == (1, 1)


def test_shrinking_to_a_size_below_one_that_is_right(tmp_path):
    registry = with_suspect(OPS["linear"], lambda a: spoil(a) if len(a) == 2 or len(a) > 4
                            else None)
    capsule = captured(registry, tmp_path)
    assert len(capsule.inputs["x"]) > 4
    assert len(shrink(capsule, "suspect", registry, repeat=1).inputs["x"]) == 2


def test_on_the_command_line(tmp_path, monkeypatch, capsys):
    registry = with_suspect(OPS["linear"])
    captured(registry, tmp_path)
    (path,) = tmp_path.glob("*.npz")
    monkeypatch.setattr("models.verify._registry", lambda args: registry)
    assert main(["--replay", str(path), "--shrink"]) == 1
    said = capsys.readouterr()
    assert "made smaller: " in said.err and "-small.npz" in said.err and "WRONG" in said.out
    assert main(["--replay", str(path.with_name(f"{path.stem}-small.npz"))]) == 1
