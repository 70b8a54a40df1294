"""The start of an engine: activations first, then the KV cache from what is free; few plans."""

import re

import pytest

import models
from core.errors import AllocationError, OptionError
from core.runtime.executor import Executor
from core.runtime.step_plans import BoundStep
from core.tensor.host import HostAllocator

MODEL = "stories-llama2"


def have_free(monkeypatch, nbytes: int) -> None:
    """Let so many bytes be free once the activations have their memory, and none before."""
    reserved = []
    real = Executor.reserve

    def reserve(self, kind, tokens):
        reserved.append(real(self, kind, tokens))
        return reserved[-1]
    monkeypatch.setattr(Executor, "reserve", reserve)
    monkeypatch.setattr(HostAllocator, "available", lambda self: nbytes if reserved else 0)


def test_the_cache_has_its_share_of_what_is_free(monkeypatch):
    have_free(monkeypatch, 3 << 20)
    with models.load_engine(MODEL, max_context=64, gpu_memory_utilization=0.4) as engine:
        nbytes = engine.executor.steps.kv_bytes // engine.pool.blocks
        assert engine.pool.blocks == int(0.4 * (3 << 20)) // nbytes
        assert engine.generate("Once upon a time")[0].finished


def test_no_more_than_every_sequence_can_use_is_taken(monkeypatch):
    have_free(monkeypatch, 1 << 40)
    with models.load_engine(MODEL, max_context=64, max_num_seqs=3) as engine:
        assert engine.pool.blocks == 3 * 4


def test_too_little_memory_is_told_with_the_context_that_fits(monkeypatch):
    have_free(monkeypatch, 1 << 19)
    with pytest.raises(AllocationError, match=r"the KV cache of one sequence of 512 tokens needs "
                       r"\d+\.\d MiB on cpu.*, 0\.5 MiB are free beside weights and activations, "
                       r"of which 50% may be used; pass --max-context \d+ or less") as error:
        models.load_engine(MODEL, max_context=512)
    fits = int(re.search(r"--max-context (\d+)", str(error.value))[1])
    with models.load_engine(MODEL, max_context=fits) as engine:
        assert engine.pool.blocks * 16 == fits
    with pytest.raises(AllocationError, match="one sequence"):
        models.load_engine(MODEL, max_context=fits + 16)


def test_memory_for_no_block_is_told(monkeypatch):
    have_free(monkeypatch, 1 << 10)
    with pytest.raises(AllocationError, match="not one block fits: pass a smaller --max-num-b"):
        models.load_engine(MODEL, max_context=64)


def test_more_blocks_than_memory_holds_are_told(monkeypatch):
    have_free(monkeypatch, 1 << 20)
    with pytest.raises(AllocationError, match=r"a KV cache of 9,999 blocks .* needs .* 1\.0 MiB "
                       r"are free .*; pass --kv-blocks \d+ or less") as error:
        models.load_engine(MODEL, kv_blocks=9999)
    fits = int(re.search(r"--kv-blocks (\d+)", str(error.value))[1])
    with models.load_engine(MODEL, kv_blocks=fits) as engine:
        assert engine.pool.blocks == fits


@pytest.mark.parametrize("tokens", [10**12, 2**62])
def test_a_step_that_does_not_fit_is_told(tokens):
    with pytest.raises(AllocationError, match=f"activations of a step of {tokens:,} tokens and 256 "
                       "sequences, do not fit: .* bytes.*; pass a smaller --max-num-batched-tokens"
                       ) as error:
        models.load_engine(MODEL, max_num_batched_tokens=tokens)
    assert "--max-context" not in str(error.value)


@pytest.mark.parametrize(("options", "said"), [
    ({"max_model_len": 16, "max_context": 32}, "two names of one option"),
    ({"chunk": 4}, "chunk has no meaning for an engine: max_num_batched_tokens")])
def test_options_that_would_be_ignored(options, said):
    with pytest.raises(OptionError, match=said):
        models.load_engine(MODEL, **options)


def test_plans_of_other_sizes_are_left_for_later(monkeypatch):
    made = []
    real = BoundStep.__init__

    def bind(self, *args, **options):
        made.append(self)
        real(self, *args, **options)
    monkeypatch.setattr(BoundStep, "__init__", bind)
    with models.load_engine(MODEL, max_num_seqs=256):
        assert len(made) == 2, "the widest step, for its memory, and the smallest, for the cache"
