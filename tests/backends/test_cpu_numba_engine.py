"""The engine on cpu_numba gives the tokens of `Model.generate` on it."""

import pytest
from engine_requests import check_same_tokens

pytest.importorskip("cpu_numba")


@pytest.mark.parametrize("name", ["llama3", "int8"])
def test_same_tokens(name):
    check_same_tokens(name, "cpu_numba,cpu_numpy")
