"""Tests the module of each plugin: commands import it, so it is quick, silent, changes nothing."""

from importlib.metadata import EntryPoint

import pytest

from core.conformance.apart.manners import complaints


def test_has_manners(plugin: EntryPoint) -> None:
    found = complaints(plugin)
    if found:
        pytest.fail("\n".join([f"plugin {plugin.name} ({plugin.value}):",
                               *(f"  {c}" for c in found)]), pytrace=False)
