"""How many tokens of a prompt are computed at once, where nobody names a number."""

import pytest

import models
from core.installed.registry import default_registry
from models.checkpoints.base import read_checkpoint
from models.engine.load import settle_checkpoint
from models.engine.options import LoadOptions

CPU_NUMPY = default_registry().backend("cpu_numpy")


def chosen(monkeypatch, free, **options):
    monkeypatch.setattr(type(CPU_NUMPY), "prompt_chunk", 4096)
    monkeypatch.setattr(type(CPU_NUMPY.allocator), "available", lambda self: free)
    checkpoint = read_checkpoint("random:llama3.2-1b", default_registry())
    settled = settle_checkpoint(checkpoint, LoadOptions("cpu_numpy", **options), default_registry())
    return settled.chunk


# a token's activations of a layer: 3 * (8192 + 2048) + (32 + 2 * 8) * 64 numbers of 4 bytes; a
# 32nd is 16.5 GiB for 4,096. Weights are 4.6 GiB in f32, the cache of 4,096 tokens 0.25
@pytest.mark.parametrize(("gib", "chunk"), [(80, 4096), (22, 4096), (21, 2048), (12, 1024),
                                            (4, 512), (1, 512)])
def test_the_backends_choice_is_halved_where_memory_is_short(monkeypatch, gib, chunk):
    assert chosen(monkeypatch, gib << 30) == chunk


def test_a_device_that_does_not_say_what_is_free_has_enough(monkeypatch):
    assert chosen(monkeypatch, None) == 4096


def test_a_number_that_the_user_names_is_taken(monkeypatch):
    assert chosen(monkeypatch, 1 << 30, chunk=3000) == 3000
    assert chosen(monkeypatch, 80 << 30, chunk=7) == 7


def test_a_session_computes_so_many(monkeypatch):
    monkeypatch.setattr(type(CPU_NUMPY), "prompt_chunk", 5)
    with models.load("stories-llama2", backend="cpu_numpy") as model:
        model.session.prefill([1] * 12)
        assert {s.call.dims["T"] for p in model.session.plans
                for s in p.bindings if s.call.op.name == "attention"} == {1, 2, 5}
