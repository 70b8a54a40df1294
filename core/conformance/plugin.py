"""The suite's pytest plugin.

An entry point loads it wherever core is installed, since pytest does not read the conftest.py of a
package named with --pyargs early enough for its options. It imports core only when the suite itself
is collected.
"""

from __future__ import annotations

import pytest

SUITE = "core.conformance.test_ops"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("kernelyard conformance")
    group.addoption("--backend", action="append", help="backend to test; may repeat (default: "
                    "every installed one that is available)")
    group.addoption("--large", action="store_true", help="the samples that need gigabytes, instead "
                    "of the others")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.module.__name__ != SUITE or "case" not in metafunc.fixturenames:
        return
    from core.conformance.cases import matrix
    from core.errors import BackendError
    from core.registry import default_registry
    registry = default_registry()
    named = metafunc.config.getoption("--backend")
    backends = named or [b for b in sorted(registry.specs) if registry.unavailable(b) is None]
    large = metafunc.config.getoption("--large")
    try:
        cases = [c for b in backends for c in matrix(registry, b, large=large)]
    except BackendError as error:
        raise pytest.UsageError(str(error)) from None
    metafunc.parametrize("case", cases, ids=[c.id for c in cases])
