"""Tests `Backend.quantize` of each backend."""

import pytest

from core.conformance.rules.quantizing import wrong_bits
from core.installed.registry import Registry


def test_has_the_bits_of_the_definition(quantizer: tuple[Registry, str]) -> None:
    registry, name = quantizer
    if found := wrong_bits(registry.backend(name)):
        pytest.fail(f"quantize of {name} has other bits than core.ops.quantized.quantize for "
                    f"{len(found)} matrices, such as {found[0]}", pytrace=False)
