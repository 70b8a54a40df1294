"""The engine on cpu_numba gives the tokens of `Model.generate` on it."""

import pytest
from engine_requests import REQUESTS, check_same_tokens

pytest.importorskip("cpu_numba")


@pytest.mark.parametrize(("name", "count"), [
    ("llama3", REQUESTS), ("int8", 12), ("llama2", 12), ("qwen2", 12), ("int8_cache", 12)])
def test_same_tokens(name, count):
    check_same_tokens(name, "cpu_numba,cpu_numpy", count)
