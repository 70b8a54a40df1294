"""The engine on cpu_numba gives the tokens of `Model.generate` on it."""

import pytest
from engine_requests import REQUESTS, check_same_tokens

import models

pytest.importorskip("cpu_numba")


@pytest.mark.parametrize(("name", "count"), [
    ("llama3", REQUESTS), ("int8", 12), ("llama2", 12), ("qwen2", 12), ("int8_cache", 12)])
def test_same_tokens(name, count):
    check_same_tokens(name, "cpu_numba,cpu_numpy", count)


def test_attention_of_one_token_of_each_sequence_lays_out_no_tiles():
    found = []
    with models.load_engine("stories-llama2", backend="cpu_numba,cpu_numpy",
                            max_num_seqs=16) as engine:
        for length in (1, 2):
            engine.generate([[i] * length for i in range(1, 17)],
                            models.SamplingParams(max_tokens=2, ignore_eos=True))
            found.append({e.kernel for e in engine.ledger.entries})
    assert "cpu_numba:attention_stretches_many" in found[0]
    assert "cpu_numba:attention_tiles" not in found[0]
    assert "cpu_numba:attention_tiles" in found[1]
