"""Options of the conformance suite."""

from __future__ import annotations

from functools import cache

import pytest

from core.conformance.cases import Case, matrix
from core.registry import default_registry


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("kernelyard conformance")
    group.addoption("--backend", action="append", help="backend to test; may repeat (default: every "
                    "installed one that is available)")
    group.addoption("--large", action="store_true", help="the samples that need gigabytes, instead")


@cache
def _cases(backend: str, large: bool) -> list[Case]:
    return list(matrix(default_registry(), backend, large=large))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" not in metafunc.fixturenames:
        return
    registry = default_registry()
    named = metafunc.config.getoption("--backend")
    backends = named or [b for b in sorted(registry.specs) if registry.unavailable(b) is None]
    cases = [c for b in backends for c in _cases(b, metafunc.config.getoption("--large"))]
    metafunc.parametrize("case", cases, ids=[c.id for c in cases])
