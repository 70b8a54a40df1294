"""The engine gives the tokens of `Model.generate`, whatever a request is computed beside."""

import pytest
from engine_requests import CONFIGURATIONS, check_same_tokens


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_same_tokens(name):
    check_same_tokens(name, "cpu_numpy")
