"""Tests `Backend.quantize` of each backend."""

import pytest

from core.conformance.plugin import registry_of
from core.conformance.rules.quantizing import wrong_bits


def test_has_the_bits_of_the_definition(quantizer: str, request: pytest.FixtureRequest) -> None:
    found = wrong_bits(registry_of(request.config).backend(quantizer))
    if found:
        pytest.fail(f"quantize of {quantizer} has other bits than core.ops.quantized.quantize for "
                    f"{len(found)} matrices, such as {found[0]}", pytrace=False)
