"""A closed model's memory is free at once: it does not wait for Python's garbage collector."""

import gc

import pytest

import models
from core.installed.registry import default_registry

ALLOCATOR = default_registry().backend("cpu_numpy").allocator


@pytest.fixture
def uncollected():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_of_a_session(uncollected):
    before = ALLOCATOR.stats.allocated
    with models.load("stories-llama2", backend="cpu_numpy", quantize="int8") as model:
        model.generate("Once", max_new_tokens=3).run()
        assert ALLOCATOR.stats.allocated > before
    del model
    assert ALLOCATOR.stats.allocated == before


def test_of_an_engine(uncollected):
    before = ALLOCATOR.stats.allocated
    with models.load_engine("stories-llama2", backend="cpu_numpy", max_num_seqs=4) as engine:
        engine.generate(["Once", "Twice"], models.SamplingParams(max_tokens=3))
        assert ALLOCATOR.stats.allocated > before
    del engine
    assert ALLOCATOR.stats.allocated == before
